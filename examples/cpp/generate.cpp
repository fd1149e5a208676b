// Makes an image from a bundle that `sdrt bundle` wrote. docs/bundle.md describes the files and the loop.
//
//   generate BUNDLE PROMPT IMAGE.png [SEED]

#include <onnxruntime_cxx_api.h>
#include <png.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "noise.hpp"
#include "tokenizer.hpp"

namespace fs = std::filesystem;
using json = nlohmann::json;
using Shape = std::vector<std::int64_t>;

namespace {

std::size_t count(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
}

json read(const fs::path& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path.string() + " cannot be read: expected a folder that sdrt bundle wrote");
  return json::parse(file);
}

// A tensor that owns a copy of `values`.
template <typename To, typename From>
Ort::Value tensor(const std::vector<From>& values, const Shape& shape) {
  Ort::AllocatorWithDefaultOptions allocator;
  Ort::Value made = Ort::Value::CreateTensor<To>(allocator, shape.data(), shape.size());
  std::transform(values.begin(), values.end(), made.GetTensorMutableData<To>(),
                 [](From one) { return static_cast<To>(one); });
  return made;
}

template <typename From>
Ort::Value tensor(const std::string& type, const std::vector<From>& values, const Shape& shape) {
  if (type == "int64") return tensor<std::int64_t>(values, shape);
  if (type == "int32") return tensor<std::int32_t>(values, shape);
  if (type == "float32") return tensor<float>(values, shape);
  throw std::runtime_error("plan.json has the type " + type + ": expected float32, int32 or int64");
}

Shape shape_of(const Ort::Value& value) { return value.GetTensorTypeAndShapeInfo().GetShape(); }

std::vector<float> floats(const Ort::Value& value) {
  if (value.GetTensorTypeAndShapeInfo().GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) {
    throw std::runtime_error("a graph gives another type than float32");
  }
  const float* data = value.GetTensorData<float>();
  return {data, data + count(shape_of(value))};
}

class Graph {
 public:
  Graph(Ort::Env& env, const fs::path& path) : session_(env, path.c_str(), Ort::SessionOptions{}) {}

  std::vector<Ort::Value> run(const std::vector<std::string>& inputs, const std::vector<Ort::Value>& values,
                              const std::vector<std::string>& outputs) {
    const auto in = pointers(inputs), out = pointers(outputs);
    return session_.Run(Ort::RunOptions{nullptr}, in.data(), values.data(), in.size(), out.data(), out.size());
  }

 private:
  static std::vector<const char*> pointers(const std::vector<std::string>& names) {
    std::vector<const char*> made;
    for (const std::string& name : names) made.push_back(name.c_str());
    return made;
  }

  Ort::Session session_;
};

template <typename... Values>
std::vector<Ort::Value> list(Values&&... values) {
  std::vector<Ort::Value> made;
  (made.push_back(std::forward<Values>(values)), ...);
  return made;
}

struct Image {
  unsigned width, height;
  std::vector<unsigned char> pixels;  // RGB
};

Image generate(const fs::path& bundle, const std::string& prompt, std::uint64_t seed) {
  const json plan = read(bundle / "plan.json");
  if (plan.at("version") != 1) throw std::runtime_error("plan.json has version " + plan.at("version").dump() + ": expected 1");
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "sdrt");
  std::map<std::string, Graph> graphs;
  for (const char* part : {"text_encoder", "unet", "step", "vae_decoder"}) {
    graphs.try_emplace(part, env, bundle / fs::u8path(plan.at(part).at("graph").get<std::string>()));
  }
  const Tokenizer tokenizer(read(bundle / fs::u8path(plan.at("tokenizer").at("file").get<std::string>())), plan.at("tokenizer"));

  // Text: the negative prompt, which is empty here, comes first.
  const bool guided = !plan.at("guidance_scale").is_null();
  const json& encoder = plan.at("text_encoder");
  std::vector<float> embeddings;
  Shape embeddings_shape;
  for (const std::string& text : guided ? std::vector<std::string>{"", prompt} : std::vector<std::string>{prompt}) {
    const auto ids = tokenizer.encode(text);
    const Shape shape = {1, static_cast<std::int64_t>(ids.size())};
    const auto made = graphs.at("text_encoder")
                          .run({encoder.at("input")}, list(tensor(encoder.at("input_type"), ids, shape)), {encoder.at("output")});
    const auto values = floats(made[0]);
    embeddings.insert(embeddings.end(), values.begin(), values.end());
    embeddings_shape = shape_of(made[0]);
  }
  const std::int64_t rows = embeddings_shape[0] = guided ? 2 : 1;

  // Noise.
  Shape shape = plan.at("latents");
  shape.insert(shape.begin(), 1);
  Noise noise(seed);
  std::vector<float> latents = noise.draw(count(shape));
  const float initial_scale = plan.at("initial_scale"), first_scale = plan.at("first_scale");
  std::vector<float> sample;
  for (float& one : latents) one *= initial_scale;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (const float one : latents) sample.push_back(one * first_scale);
  }
  Shape sample_shape = shape, history_shape = shape;
  sample_shape[0] = rows;
  history_shape.insert(history_shape.begin(), plan.at("step").at("history").get<std::int64_t>());
  std::vector<Ort::Value> state = list(tensor<float>(latents, shape), tensor<float>(std::vector<float>(count(history_shape)), history_shape),
                                       tensor<float>(sample, sample_shape));

  // Steps. Each takes the previous one's latents, history and sample.
  const json& unet = plan.at("unet");
  std::vector<std::string> inputs = {"latents", "history", "output", "noise", "factors"};
  if (guided) inputs.push_back("guidance_scale");
  for (const json& step : plan.at("steps")) {
    auto feeds = list(std::move(state[2]), tensor(unet.at("timestep_type"), std::vector<double>{step.at("timestep")}, {}),
                      tensor<float>(embeddings, embeddings_shape));
    auto output = graphs.at("unet").run({unet.at("sample"), unet.at("timestep"), unet.at("text")}, feeds, {unet.at("output")});
    const auto fresh = step.at("draws_noise") ? noise.draw(count(shape)) : std::vector<float>(count(shape));
    const std::vector<float> factors = step.at("factors");
    auto given = list(std::move(state[0]), std::move(state[1]), std::move(output[0]), tensor<float>(fresh, shape),
                      tensor<float>(factors, {static_cast<std::int64_t>(factors.size())}));
    if (guided) given.push_back(tensor<float>(std::vector<float>{plan.at("guidance_scale")}, {}));
    state = graphs.at("step").run(inputs, given, {"next_latents", "next_history", "next_sample"});
  }

  // Image.
  const json& vae = plan.at("vae_decoder");
  const float scale = plan.at("final_scale").get<float>() * vae.at("factor").get<float>(), shift = vae.at("shift");
  latents = floats(state[0]);
  for (float& one : latents) one = one * scale + shift;
  const auto decoded = graphs.at("vae_decoder").run({vae.at("input")}, list(tensor<float>(latents, shape)), {vae.at("output")});
  const auto planes = floats(decoded[0]);
  const Shape size = shape_of(decoded[0]);
  Image image{static_cast<unsigned>(size[3]), static_cast<unsigned>(size[2]), {}};
  const std::size_t pixels = std::size_t{image.width} * image.height;
  for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
    for (std::size_t colour = 0; colour < 3; ++colour) {
      const float value = std::clamp(planes[colour * pixels + pixel] / 2 + 0.5F, 0.0F, 1.0F);
      if (std::isnan(value)) throw std::runtime_error("the image has values that are no numbers");
      image.pixels.push_back(static_cast<unsigned char>(std::nearbyint(value * 255)));
    }
  }
  return image;
}

std::uint64_t seed_of(const std::string& text) {
  std::uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw std::runtime_error("SEED is " + text + ": expected a whole number from 0 to 18446744073709551615");
  }
  return seed;
}

void write(const Image& image, const std::string& path) {
  png_image about{};
  about.version = PNG_IMAGE_VERSION;
  about.width = image.width;
  about.height = image.height;
  about.format = PNG_FORMAT_RGB;
  if (!png_image_write_to_file(&about, path.c_str(), 0, image.pixels.data(), 0, nullptr)) {
    throw std::runtime_error(path + " cannot be written: " + about.message);
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4 || count > 5) {
    std::cerr << "usage: generate BUNDLE PROMPT IMAGE.png [SEED]\n";
    return 2;
  }
  try {
    const std::uint64_t seed = count > 4 ? seed_of(arguments[4]) : 0;
    write(generate(fs::u8path(arguments[1]), arguments[2], seed), arguments[3]);
  } catch (const std::exception& error) {
    std::cerr << "generate: " << error.what() << "\n";
    return 1;
  }
}

// Normal noise equal to that of torch's CPU generator, so that a seed gives the same image as in Python.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <vector>

class Noise {
 public:
  // Only the low 32 bits of the seed matter, as in torch.
  explicit Noise(std::uint64_t seed) : words_(static_cast<std::uint32_t>(seed)) {}

  // Draws `size` values, at least 16: torch uses another method for fewer.
  std::vector<float> draw(std::size_t size) {
    if (size < kBlock) throw std::invalid_argument("expected 16 values or more");
    std::vector<double> uniforms(size);
    for (double& one : uniforms) one = uniform();
    std::vector<float> made(size);
    for (std::size_t at = 0; at + kBlock <= size; at += kBlock) transform(&uniforms[at], &made[at]);
    if (size % kBlock != 0) {
      // The last 16 values are drawn again.
      std::vector<double> again(kBlock);
      for (double& one : again) one = uniform();
      transform(again.data(), &made[size - kBlock]);
    }
    return made;
  }

 private:
  static constexpr std::size_t kBlock = 16;

  double uniform() { return (words_() & 0xffffff) * 0x1p-24; }

  // Box-Muller: 8 radii and 8 angles make 16 values. The angle is rounded to float, as in torch.
  static void transform(const double* uniforms, float* into) {
    constexpr float kTurn = static_cast<float>(2 * 3.14159265358979323846);
    for (int n = 0; n < 8; ++n) {
      const double radius = std::sqrt(-2 * std::log(1 - uniforms[n]));
      const float angle = static_cast<float>(uniforms[n + 8]) * kTurn;
      into[n] = static_cast<float>(radius * std::cos(static_cast<double>(angle)));
      into[n + 8] = static_cast<float>(radius * std::sin(static_cast<double>(angle)));
    }
  }

  std::mt19937 words_;
};

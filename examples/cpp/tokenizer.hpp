// CLIP's byte-level BPE, from a bundle's tokenizer.json.
#pragma once

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/regex.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

class Tokenizer {
 public:
  // `json` is tokenizer.json, and `plan` the entry `tokenizer` of plan.json.
  Tokenizer(const nlohmann::json& json, const nlohmann::json& plan)
      : length_(plan.at("length")), start_(plan.at("start")), end_(plan.at("end")), padding_(plan.at("padding")) {
    const auto& model = json.at("model");
    for (const auto& [piece, id] : model.at("vocab").items()) vocab_.emplace(piece, id);
    for (const auto& pair : model.at("merges")) {
      const bool is_text = pair.is_string();
      const std::string joined = is_text ? pair.get<std::string>() : pair.at(0).get<std::string>() + " " + pair.at(1).get<std::string>();
      ranks_.emplace(joined, ranks_.size());
    }
    unknown_ = vocab_.at(model.at("unk_token"));
    for (const auto& one : json.at("added_tokens")) {
      const std::string word = one.at("content");
      if (!word.empty()) added_.emplace(word, one.at("id"));
    }
    const std::string pattern = R"('s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+)";
    UErrorCode status = U_ZERO_ERROR;
    pattern_.reset(icu::RegexPattern::compile(icu::UnicodeString::fromUTF8(pattern), 0, status));
    check(status);
  }

  // The ids of a text, cut or padded to the plan's length.
  std::vector<std::int64_t> encode(const std::string& text) const {
    std::vector<std::int64_t> ids = {start_};
    for (const std::string& word : words(text)) {
      if (const auto found = added_.find(word); found != added_.end()) {
        ids.push_back(found->second);
      } else {
        for (const std::string& piece : pieces(word)) {
          const auto known = vocab_.find(piece);
          ids.push_back(known == vocab_.end() ? unknown_ : known->second);
        }
      }
      if (ids.size() >= length_) break;
    }
    ids.resize(std::min(ids.size(), length_ - 1));
    ids.push_back(end_);
    ids.resize(length_, padding_);
    return ids;
  }

 private:
  static void check(UErrorCode status) {
    if (U_FAILURE(status)) throw std::runtime_error(std::string("ICU: ") + u_errorName(status));
  }

  // The words of a text, in NFC and lower case.
  std::vector<std::string> words(const std::string& text) const {
    UErrorCode status = U_ZERO_ERROR;
    const auto normal = icu::Normalizer2::getNFCInstance(status)->normalize(icu::UnicodeString::fromUTF8(text), status);
    check(status);
    // Letter by letter: ICU's rules for whole words, such as that of the final sigma, are not CLIP's.
    icu::UnicodeString lower;
    for (std::int32_t at = 0; at < normal.length(); at = normal.moveIndex32(at, 1)) {
      lower.append(icu::UnicodeString(normal.char32At(at)).toLower(icu::Locale::getRoot()));
    }
    std::string plain;
    lower.toUTF8String(plain);
    std::vector<std::string> found;
    for (std::size_t at = 0; at < plain.size();) {
      // Words with ids of their own, such as <|endoftext|>, are never split, and end the word before them.
      std::size_t next = plain.size();
      std::string special;
      for (const auto& [word, id] : added_) {
        const std::size_t place = plain.find(word, at);
        if (place < next || (place == next && word.size() > special.size())) {
          next = place;
          special = word;
        }
      }
      const auto part = icu::UnicodeString::fromUTF8(plain.substr(at, next - at));
      const std::unique_ptr<icu::RegexMatcher> matcher(pattern_->matcher(part, status));
      check(status);
      while (matcher->find(status)) matcher->group(status).toUTF8String(found.emplace_back());
      check(status);
      if (!special.empty()) found.push_back(special);
      at = next + special.size();
    }
    return found;
  }

  // Joins a word's letters to pieces: the pair with the lowest rank first, until no pair has a rank.
  std::vector<std::string> pieces(const std::string& word) const {
    static const std::array<std::string, 256> letters = letters_of_bytes();
    std::vector<std::string> found;
    for (const unsigned char byte : word) found.push_back(letters[byte]);
    found.back() += "</w>";
    constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
    const auto rank = [&](std::size_t n) {
      if (n + 1 >= found.size()) return none;
      const auto known = ranks_.find(found[n] + " " + found[n + 1]);
      return known == ranks_.end() ? none : known->second;
    };
    std::vector<std::size_t> ranks;
    for (std::size_t n = 0; n < found.size(); ++n) ranks.push_back(rank(n));
    for (;;) {
      const auto best = static_cast<std::size_t>(std::min_element(ranks.begin(), ranks.end()) - ranks.begin());
      if (ranks[best] == none) return found;
      found[best] += found[best + 1];
      found.erase(found.begin() + best + 1);
      ranks.erase(ranks.begin() + best + 1);
      ranks[best] = rank(best);
      if (best > 0) ranks[best - 1] = rank(best - 1);
    }
  }

  // The letter that stands for each byte in a byte-level vocabulary: printable ones for themselves.
  static std::array<std::string, 256> letters_of_bytes() {
    std::array<std::string, 256> made;
    char32_t more = 256;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool is_printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const auto letter = static_cast<UChar32>(is_printable ? byte : more++);
      icu::UnicodeString(letter).toUTF8String(made[byte]);
    }
    return made;
  }

  std::size_t length_;
  std::int64_t start_, end_, padding_, unknown_ = 0;
  std::unordered_map<std::string, std::int64_t> vocab_, added_;
  std::unordered_map<std::string, std::size_t> ranks_;
  std::unique_ptr<icu::RegexPattern> pattern_;
};

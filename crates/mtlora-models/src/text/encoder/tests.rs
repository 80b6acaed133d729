#![allow(clippy::unwrap_used)]
use super::*;
use crate::families::encoder::architecture::Architecture;
use crate::families::encoder::config::{EncoderConfig, EncoderSizes};
use crate::text::vocabulary::{train_tokenizer, write_tokenizer};
use proptest::prelude::*;
use serde_json::json;

fn config(architecture: Architecture, vocab_size: usize) -> EncoderConfig {
    let sizes = EncoderSizes {
        vocab_size,
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 16,
        max_tokens: 24,
    };
    EncoderConfig::new(architecture, sizes).unwrap()
}

fn roberta() -> Value {
    let lines = (0..200).map(|n| format!("the cat number {n} sat on the other mat"));
    let tokenizer = train_tokenizer(lines, 300).unwrap();
    serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap()
}

/// A word-piece tokenizer like BERT's, with the settings that folders for sentence embeddings have.
fn bert() -> Value {
    let words = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "mat",
    ];
    let vocab: serde_json::Map<String, Value> = words
        .iter()
        .enumerate()
        .map(|(id, word)| (word.to_string(), json!(id)))
        .collect();
    let special = |id: usize| {
        json!({"id": id, "content": words[id], "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true})
    };
    let token = |name: &str, kind: usize| json!({"SpecialToken": {"id": name, "type_id": kind}});
    let text = |name: &str, kind: usize| json!({"Sequence": {"id": name, "type_id": kind}});
    json!({
        "version": "1.0",
        "truncation": {"max_length": 5, "strategy": "OnlyFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0)],
            "pair": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1), token("[SEP]", 1)],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

fn load(
    file: &Value,
    config: &EncoderConfig,
    max_length: usize,
) -> Result<TextEncoder, ModelError> {
    let path = Path::new("tokenizer.json");
    TextEncoder::from_bytes(path, file.to_string().as_bytes(), config, max_length)
}

/// transformers 5.24: `AutoTokenizer.from_pretrained(assets/tiny-roberta, truncation_side=side)(a, b,
/// truncation=True, max_length=21)`, which leaves 17 tokens for the two texts.
#[test]
fn an_odd_number_of_tokens_is_split_by_the_lengths_of_the_whole_texts() {
    let assets = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../assets/tiny-roberta"
    ));
    let cases = [
        ((129, 86), (9, 8)),
        ((32, 86), (8, 9)),
        ((43, 43), (8, 9)),
        ((86, 129), (8, 9)),
        ((9, 8), (8, 9)),
        ((8, 12), (8, 9)),
        ((3, 200), (3, 14)),
        ((200, 3), (13, 4)),
    ];
    for side in ["left", "right"] {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config.json", "tokenizer.json"] {
            std::fs::copy(assets.join(name), folder.path().join(name)).unwrap();
        }
        let settings = json!({"truncation_side": side}).to_string();
        std::fs::write(folder.path().join("tokenizer_config.json"), settings).unwrap();
        let config = EncoderConfig::from_folder(folder.path()).unwrap();
        let text = TextEncoder::from_folder(folder.path(), &config, 21).unwrap();
        for ((first, second), split) in cases {
            let [one, other] =
                [("a", first), ("the", second)].map(|(word, count)| vec![word; count].join(" "));
            let row = (one.as_str(), Some(other.as_str()));
            let alone = text.encode(row.0, row.1).unwrap();
            let end = text.eos_token_id().unwrap();
            let at = alone.ids.iter().position(|id| *id == end).unwrap();
            assert_eq!(
                (at - 1, alone.len() - at - 3),
                split,
                "{side} {first} {second}"
            );
            let batch = text.encode_batch(&[row, ("a", None), row]).unwrap();
            assert_eq!([&batch[0], &batch[2]], [&alone, &alone]);
        }
    }
}

#[test]
fn bert_pairs_have_two_types_and_no_padding() {
    let config = config(Architecture::Bert, 10);
    let encoder = load(&bert(), &config, 512).unwrap();
    assert_eq!(encoder.max_length(), 24);
    let tokens = encoder.encode("The cats", Some("mat dog")).unwrap();
    assert_eq!(tokens.ids, [2, 5, 6, 8, 3, 9, 1, 3]);
    assert_eq!(tokens.type_ids, [0, 0, 0, 0, 0, 1, 1, 1]);
    assert_eq!(encoder.encode("", None).unwrap().ids, [2, 3]);
    assert_eq!(
        [
            encoder.mask_token_id(),
            encoder.bos_token_id(),
            encoder.eos_token_id(),
            encoder.pad_token_id()
        ],
        [Some(4), Some(2), Some(3), Some(0)]
    );
    assert_eq!(encoder.special_token_ids(), [0, 1, 2, 3, 4]);
    // A model with a single token type has no row for the second text's type.
    let mut one_type = config;
    one_type.type_vocab_size = 1;
    let tokens = load(&bert(), &one_type, 512)
        .unwrap()
        .encode("cat", Some("cat"))
        .unwrap();
    assert_eq!(tokens.type_ids, [0; 5]);
}

#[test]
fn the_longest_text_is_truncated_first() {
    let encoder = load(&bert(), &config(Architecture::Bert, 10), 9).unwrap();
    let long = "cat ".repeat(1000);
    assert_eq!(encoder.encode(&long, None).unwrap().len(), 9);
    let tokens = encoder.encode("mat", Some(&long)).unwrap();
    assert_eq!(tokens.ids, [2, 9, 3, 6, 6, 6, 6, 6, 3]);
    let tokens = encoder.encode(&long, Some("mat mat")).unwrap();
    assert_eq!(tokens.ids, [2, 6, 6, 6, 6, 3, 9, 9, 3]);
    let error = load(&bert(), &config(Architecture::Bert, 10), 4).unwrap_err();
    assert!(
        matches!(
            error,
            ModelError::MaxLength {
                asked: 4,
                special: 3,
                least: 5
            }
        ),
        "{error}"
    );
    assert!(load(&bert(), &config(Architecture::Bert, 10), 0).is_err());
    let encoder = load(&bert(), &config(Architecture::Bert, 10), 5).unwrap();
    assert_eq!(
        encoder.encode(&long, Some(&long)).unwrap().ids,
        [2, 6, 3, 6, 3]
    );
}

#[test]
fn roberta_reads_from_a_folder_within_its_positions() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = train_tokenizer((0..200).map(|n| format!("cat {n}")), 280).unwrap();
    write_tokenizer(&tokenizer, folder.path(), 24).unwrap();
    let vocab_size = tokenizer.get_vocab_size(true);
    let config = config(Architecture::Roberta, vocab_size);
    assert_eq!(config.max_position_embeddings, 26);
    let encoder = TextEncoder::from_folder(folder.path(), &config, 100).unwrap();
    assert_eq!(encoder.max_length(), 24);
    let tokens = encoder.encode(&"cat 17 ".repeat(50), Some("and")).unwrap();
    assert_eq!(tokens.len(), 24);
    assert!(tokens.type_ids.iter().all(|&id| id == 0));
    assert_eq!(encoder.mask_token_id(), Some(4));
    assert_eq!(encoder.special_token_ids(), [0, 1, 2, 3, 4]);
    let empty = tempfile::tempdir().unwrap();
    let error = TextEncoder::from_folder(empty.path(), &config, 100).unwrap_err();
    assert!(
        error.to_string().contains("it has no tokenizer.json; "),
        "{error}"
    );
}

#[test]
fn a_tokenizer_of_another_model_is_refused_with_both_vocabulary_sizes() {
    let file = bert();
    for vocab_size in [9, 5, 11, 1000] {
        let error = load(&file, &config(Architecture::Bert, vocab_size), 16).unwrap_err();
        let text =
            format!("the tokenizer has 10 tokens, but config.json says vocab_size {vocab_size};");
        assert!(error.to_string().contains(&text), "{error}");
    }
    // The model's rows are rounded up, as in models with 30,528 rows for 30,522 tokens.
    load(&file, &config(Architecture::Bert, 16), 16).unwrap();
    assert!(is_padded(30_522, 30_528) && is_padded(128_001, 128_100));
    assert!(!is_padded(50_257, 50_265) && !is_padded(30_522, 50_264));
    // A special token that is only in the frame counts too.
    let mut framed = bert();
    framed["post_processor"]["special_tokens"]["[SEP]"]["ids"] = json!([77]);
    let error = load(&framed, &config(Architecture::Bert, 10), 16).unwrap_err();
    assert!(
        matches!(error, ModelError::VocabularySize { tokenizer: 78, .. }),
        "{error}"
    );
}

#[test]
fn a_tokenizer_that_adds_no_special_tokens_is_refused() {
    let mut file = bert();
    file["post_processor"]["single"] = json!([]);
    for processor in [Value::Null, file["post_processor"].take()] {
        file["post_processor"] = processor;
        let error = load(&file, &config(Architecture::Bert, 10), 16).unwrap_err();
        assert!(
            error.to_string().contains("adds no special tokens"),
            "{error}"
        );
    }
}

#[test]
fn a_frame_of_undefined_special_tokens_is_refused() {
    let mut file = bert();
    file["post_processor"]["pair"][2]["SpecialToken"]["id"] = json!("[END]");
    let inner = file["post_processor"].take();
    for processor in [
        inner.clone(),
        json!({"type": "Sequence", "processors": [inner]}),
    ] {
        file["post_processor"] = processor;
        let error = load(&file, &config(Architecture::Bert, 10), 16).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("its post_processor uses `[END]`"),
            "{error}"
        );
    }
}

#[test]
fn merges_whose_result_is_not_in_the_vocabulary_are_refused() {
    let size = |file: &Value| file["model"]["vocab"].as_object().unwrap().len();
    let good = roberta();
    let config = config(Architecture::Roberta, size(&good));
    load(&good, &config, 16).unwrap();
    let longest = good["model"]["vocab"]
        .as_object()
        .unwrap()
        .keys()
        .max_by_key(|k| k.len())
        .unwrap();
    for merge in [
        json!([longest, longest]),
        json!("t zzz"),
        json!("t"),
        json!(3),
        json!(["t"]),
    ] {
        let mut file = good.clone();
        file["model"]["merges"][1] = merge;
        let error = load(&file, &config, 16).unwrap_err();
        assert!(error.to_string().contains("merge number 1, "), "{error}");
    }
    let mut file = good.clone();
    file["model"]["continuing_subword_prefix"] = json!("a very long prefix");
    assert!(load(&file, &config, 16).is_err());
}

#[test]
fn merges_are_never_skipped_at_random() {
    let mut file = roberta();
    let config = config(
        Architecture::Roberta,
        file["model"]["vocab"].as_object().unwrap().len(),
    );
    let text = "the cat number 7 sat on the other mat";
    let expected = load(&file, &config, 24)
        .unwrap()
        .encode(text, None)
        .unwrap();
    file["model"]["dropout"] = json!(0.9);
    let encoder = load(&file, &config, 24).unwrap();
    for _ in 0..10 {
        assert_eq!(encoder.encode(text, None).unwrap(), expected);
    }
}

/// The side is the one that transformers 5.24 uses with `truncation=True`: the direction in tokenizer.json.
#[test]
fn the_direction_in_the_file_says_which_side_is_truncated() {
    let mut file = bert();
    for (direction, expected, pair) in [
        ("Right", [2, 5, 6, 7, 3], [2, 5, 3, 9, 3]),
        ("Left", [2, 7, 8, 9, 3], [2, 9, 3, 6, 3]),
    ] {
        file["truncation"]["direction"] = json!(direction);
        let encoder = load(&file, &config(Architecture::Bert, 10), 5).unwrap();
        let text = "the cat sats mat";
        assert_eq!(encoder.encode(text, None).unwrap().ids, expected);
        let tokens = encoder.encode(text, Some("mat cat")).unwrap();
        assert_eq!(tokens.ids, pair);
    }
}

/// Texts of about `words` words, with all kinds of characters and spaces.
fn long_texts(words: usize) -> impl Iterator<Item = String> {
    let parts = [
        "the",
        "cat",
        "sat",
        "mat",
        "number",
        "12",
        "3",
        "cat's",
        "don't",
        "İstanbul",
        "e\u{301}té",
        "中文",
        "¿que?",
        "<mask>",
        "</s>",
        "[MASK]",
        "it's.",
        "--",
        "हिन्दी",
        "\u{1f600}\u{200d}\u{1f600}",
        "\u{301}",
        "x<pad>y",
        "ẞ",
    ];
    let spaces = [
        " ",
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\t ",
        "\u{a0}",
        "\u{2003} ",
        "",
    ];
    (0u32..12).map(move |seed| {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut draw = |count: usize| {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize % count
        };
        (0..words)
            .map(|_| format!("{}{}", parts[draw(parts.len())], spaces[draw(spaces.len())]))
            .collect()
    })
}

#[test]
fn tokenising_part_of_a_long_text_gives_the_tokens_of_the_whole() {
    let roberta = roberta();
    let size = roberta["model"]["vocab"].as_object().unwrap().len();
    for (mut file, config) in [
        (roberta, config(Architecture::Roberta, size)),
        (bert(), config(Architecture::Bert, 10)),
    ] {
        for direction in ["Left", "Right"] {
            file["truncation"] = json!({"direction": direction, "max_length": 9, "strategy": "LongestFirst", "stride": 0});
            let encoder = load(&file, &config, 24).unwrap();
            let texts: Vec<String> = long_texts(6000).collect();
            let rows: Vec<(&str, Option<&str>)> =
                texts.iter().map(|text| (text.as_str(), None)).collect();
            let batch = encoder.encode_batch(&rows).unwrap();
            for (text, found) in texts.iter().zip(&batch) {
                let part = encoder.part(text, None, encoder.enough());
                assert!(part.len() < text.len() / 2, "{}", part.len());
                let whole = encoder.encode_whole(text, None).unwrap();
                assert_eq!(found, &whole);
                assert_eq!(encoder.encode(text, None).unwrap(), whole);
            }
        }
    }
}

/// The long first word of the text is a single unknown token, so the first 4 KiB do not yield enough tokens.
#[test]
fn more_of_a_text_is_tokenised_until_there_are_enough_tokens() {
    let word = "x".repeat(300_000);
    let few = format!("{word} the cat {word} {}", "the cat sat ".repeat(3));
    let encoder = load(&bert(), &config(Architecture::Bert, 10), 8).unwrap();
    let expected = [2, 1, 5, 6, 1, 5, 6, 3];
    assert_eq!(encoder.encode(&few, None).unwrap().ids, expected);
    let batch = encoder.encode_batch(&[("cat", None), (&few, None), ("mat", None)]);
    let ids: Vec<Vec<u32>> = batch.unwrap().into_iter().map(|one| one.ids).collect();
    assert_eq!(ids, [vec![2, 6, 3], expected.to_vec(), vec![2, 9, 3]]);
}

#[test]
fn texts_of_many_megabytes_are_truncated() {
    let encoder = load(&bert(), &config(Architecture::Bert, 10), 6).unwrap();
    let long = "the cat sat mat ".repeat((MAX_WHOLE + 100) / 16 + 1);
    assert!(long.len() > MAX_WHOLE);
    let tokens = encoder.encode(&long, None).unwrap();
    assert_eq!(tokens.ids, [2, 5, 6, 7, 9, 3]);
}

/// A token that includes the spaces after it, or has spaces in it, can cross a position where the text would be cut.
#[test]
fn a_tokenizer_whose_tokens_cross_spaces_gets_whole_texts() {
    let text = "the cat ".repeat(3000);
    let cuts = |change: &dyn Fn(&mut Value)| {
        let mut file = bert();
        change(&mut file);
        let encoder = load(&file, &config(Architecture::Bert, 10), 8).unwrap();
        encoder.part(&text, None, encoder.enough()).len() < text.len()
    };
    assert!(cuts(&|_| {}));
    assert!(cuts(&|file| file["added_tokens"][4]["lstrip"] = json!(true)));
    assert!(!cuts(
        &|file| file["added_tokens"][4]["rstrip"] = json!(true)
    ));
    assert!(!cuts(
        &|file| file["pre_tokenizer"] = json!({"type": "Whitespace"})
    ));
    assert!(!cuts(
        &|file| file["normalizer"] =
            json!({"type": "PackedBatch", "strip_left": true, "strip_right": true})
    ));
    assert!(!cuts(&|file| file["pre_tokenizer"] = Value::Null));
}

#[test]
fn a_batch_gives_the_same_as_its_texts_one_by_one() {
    let encoder = load(&bert(), &config(Architecture::Bert, 10), 12).unwrap();
    let texts: Vec<String> = (0..100).map(|n| "cat sats ".repeat(n % 9)).collect();
    let rows: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| (text.as_str(), (n % 2 == 0).then_some("the mat")))
        .collect();
    let batch = encoder.encode_batch(&rows).unwrap();
    for (&(text, pair), tokens) in rows.iter().zip(&batch) {
        assert_eq!(&encoder.encode(text, pair).unwrap(), tokens);
    }
    let long = "x".repeat(MAX_WHOLE + 1);
    for rows in [
        [("a", None), ("b", Some(long.as_str()))],
        [("a", None), (&long, None)],
    ] {
        let error = encoder.encode_batch(&rows).unwrap_err();
        assert!(error.to_string().len() < 350);
        let ModelError::OneOf { number: 2, source } = error else {
            panic!("{error}");
        };
        assert!(
            matches!(
                *source,
                ModelError::TextTooLong {
                    limit: MAX_WHOLE,
                    ..
                }
            ),
            "{source}"
        );
    }
}

/// Replaces one value somewhere in a JSON file.
fn replace(value: &mut Value, path: &[usize], new: &Value) {
    let Some((&step, rest)) = path.split_first() else {
        *value = new.clone();
        return;
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let at = step % map.len();
            if let Some(inner) = map.values_mut().nth(at) {
                replace(inner, rest, new);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let at = step % list.len();
            replace(&mut list[at], rest, new);
        }
        other => *other = new.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    /// No damaged file causes a panic, and every file that is accepted gives valid tokens.
    #[test]
    fn a_changed_file_is_refused_or_still_encodes_within_the_vocabulary(
        path in prop::collection::vec(0usize..400, 1..7),
        new in prop_oneof![
            Just(Value::Null), any::<u64>().prop_map(Value::from), (0u64..20).prop_map(Value::from),
            any::<i64>().prop_map(Value::from), "\\PC{0,6}".prop_map(Value::from),
            prop::sample::select(vec!["[SEP]", "", "##", "A", "ByteLevel", "Unigram", "Right", "cat"]).prop_map(Value::from),
            Just(json!([])), Just(json!({})), any::<bool>().prop_map(Value::from),
        ],
        text in "\\PC{0,40}",
        which in any::<bool>(),
    ) {
        thread_local!(static ROBERTA: Value = roberta());
        let mut file = if which { bert() } else { ROBERTA.with(Value::clone) };
        let architecture = if which { Architecture::Bert } else { Architecture::Roberta };
        let vocab_size = file["model"]["vocab"].as_object().unwrap().len();
        replace(&mut file, &path, &new);
        if let Ok(encoder) = load(&file, &config(architecture, vocab_size), 16) {
            for pair in [None, Some("the cat")] {
                if let Ok(tokens) = encoder.encode(&text, pair) {
                    prop_assert!((2..=16).contains(&tokens.len()), "{:?}", tokens);
                    prop_assert!(tokens.ids.iter().all(|&id| (id as usize) < vocab_size));
                    prop_assert_eq!(tokens.ids.len(), tokens.type_ids.len());
                }
            }
        }
    }
}

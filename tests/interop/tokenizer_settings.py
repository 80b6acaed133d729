"""Writes tests/fixtures/tokenizer_settings.json: the token ids that transformers gives for model folders with all kinds
of tokenizer settings.

    python tests/interop/tokenizer_settings.py assets tests/fixtures/tokenizer_settings.json

The folders are made here, from the tokenizers in assets/ and a small one of word pieces. Each case lists what its
files have in addition; everything else is as in the base."""
import copy, json, os, shutil, sys, tempfile, warnings
from pathlib import Path
warnings.simplefilter("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import transformers
from transformers import AutoTokenizer
transformers.logging.set_verbosity_error()

assets = Path(sys.argv[1])
out = Path(sys.argv[2])

def special(id, content, **kw):
    d = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    d.update(kw); return d

def dec(content, **kw):
    d = special(0, content, **kw); d.pop("id"); return d

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "mat", "The", "Cat", "café", "cafe",
         "中", "文", "##文", "中文", "[BOS]", "[EOS]", "a", "b", "##b", ".", ",", "new", "token", "[", "]", "pad", "PAD", "MASK"]
def template(cls, sep, ids):
    t = lambda n, k: {"SpecialToken": {"id": n, "type_id": k}}
    q = lambda n, k: {"Sequence": {"id": n, "type_id": k}}
    return {"type": "TemplateProcessing", "single": [t(cls, 0), q("A", 0), t(sep, 0)],
            "pair": [t(cls, 0), q("A", 0), t(sep, 0), q("B", 1), t(sep, 1)],
            "special_tokens": {n: {"id": n, "ids": [ids[n]], "tokens": [n]} for n in {cls, sep}}}
IDS = {w: i for i, w in enumerate(WORDS)}
BERT = {"version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [special(i, WORDS[i]) for i in range(5)],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template("[CLS]", "[SEP]", IDS),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": IDS}}
BASES = {"roberta": json.loads((assets / "tiny-roberta/tokenizer.json").read_text()),
         "gpt2": json.loads((assets / "tiny-gpt2/tokenizer.json").read_text()), "bert": BERT}
CONFIG = {"roberta": dict(model_type="roberta"), "gpt2": dict(model_type="gpt2"), "bert": dict(model_type="bert")}
FAST = "PreTrainedTokenizerFast"
R_NAMES = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
B_NAMES = {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
ROWS = {
 "roberta": [["The painters near the lake sleeps.", None], ["two <mask>  <mask> x <new> y", None], ["<s>a</s> b <pad>c <unk>", None],
             ["Ünïcode THE old", "lake"], ["", None], ["The lake near the old house was cold and the painters who slept near it were old", "they sleep in the house near the lake all day long"]],
 "bert": [["The Cats sat, the café.", None], ["[MASK]s [PAD] x [BOS] new token <new>", None], ["中文 CAFÉ cafe\u0301", None], ["the cat sat the mat a b", "the mats cat a b . the"], ["", None]],
 "gpt2": [["The lake", None], [" x <|endoftext|> y <new>  z", None], ["", None]],
}
cases = []
def case(name, base, tokenizer=None, tokenizer_config=None, special_tokens_map=None, added_tokens=None, config=None, max_length=None, rows=None, model=None):
    cases.append(dict(name=name, base=base, tokenizer=tokenizer or {}, model=model or {}, tokenizer_config=tokenizer_config, special_tokens_map=special_tokens_map,
                      added_tokens=added_tokens, config=config or {}, max_length=max_length, rows=rows or ROWS[base]))
LEFT = {"direction": "Left", "max_length": 7, "strategy": "OnlyFirst", "stride": 2}
RIGHT = dict(LEFT, direction="Right")
for base, names in (("roberta", R_NAMES), ("bert", B_NAMES)):
    short = {"roberta": 14, "bert": 8}[base]
    own = {"roberta": "RobertaTokenizer", "bert": "BertTokenizer"}[base]
    for cls in (FAST, own, own + "Fast", None):
        c = dict(names); 
        if cls: c["tokenizer_class"] = cls
        n = f"{base} {cls}: "
        case(n + "plain", base, tokenizer_config=c, max_length=short)
        case(n + "side left", base, tokenizer_config=dict(c, truncation_side="left"), max_length=short)
        case(n + "direction left", base, tokenizer=dict(truncation=LEFT), tokenizer_config=c, max_length=short)
        case(n + "side right, direction left", base, tokenizer=dict(truncation=LEFT), tokenizer_config=dict(c, truncation_side="right"), max_length=short)
        case(n + "side left, direction right", base, tokenizer=dict(truncation=RIGHT), tokenizer_config=dict(c, truncation_side="left"), max_length=short + 1)
    case(f"{base}: no tokenizer_config", base, max_length=short)
    case(f"{base}: no tokenizer_config, direction left", base, tokenizer=dict(truncation=LEFT), max_length=short)
    case(f"{base}: tokenizer_class in config.json", base, tokenizer_config=names, config=dict(tokenizer_class=FAST), tokenizer=dict(normalizer={"type": "Lowercase"}))
    case(f"{base}: unknown tokenizer_class", base, tokenizer_config=dict(names, tokenizer_class="MyTokenizer"), tokenizer=dict(normalizer={"type": "Lowercase"}))
    case(f"{base}: model_max_length", base, tokenizer_config=dict(names, model_max_length=9), max_length=None)
    for cls in (FAST, own):
        n = f"{base} {cls}: "
        c = dict(names, tokenizer_class=cls)
        case(n + "lower case normalizer", base, tokenizer=dict(normalizer={"type": "Lowercase"}), tokenizer_config=c)
        case(n + "null normalizer", base, tokenizer=dict(normalizer=None), tokenizer_config=c)
        case(n + "other pre-tokenizer", base, tokenizer=dict(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}]} if base == "roberta" else {"type": "WhitespaceSplit"}), tokenizer_config=c)
        case(n + "padding", base, tokenizer=dict(padding={"strategy": {"Fixed": 12}, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": names and (1 if base == "roberta" else 0), "pad_type_id": 0, "pad_token": names["pad_token"]}), tokenizer_config=c)
        case(n + "split special tokens", base, tokenizer_config=dict(c, split_special_tokens=True))
        case(n + "extra special tokens", base, tokenizer_config=dict(c, extra_special_tokens=["lake", "sat"]))
        case(n + "additional special tokens", base, tokenizer_config=dict(c, additional_special_tokens=["lake", "sat"]))
        case(n + "extra special tokens by name", base, tokenizer_config=dict(c, extra_special_tokens={"image_token": "lake" if base == "roberta" else "sat"}))
        case(n + "a token of its own name", base, tokenizer_config=dict(c, image_token="lake" if base == "roberta" else "sat"))
        case(n + "add_prefix_space", base, tokenizer_config=dict(c, add_prefix_space=True))
        case(n + "token types listed", base, tokenizer_config=dict(c, model_input_names=["input_ids", "token_type_ids", "attention_mask"]))
        case(n + "token types not listed", base, tokenizer_config=dict(c, model_input_names=["input_ids", "attention_mask"]))
        case(n + "add_bos_token", base, tokenizer_config=dict(c, add_bos_token=True, add_eos_token=True))
        case(n + "post-processor that adds other tokens", base, tokenizer=dict(post_processor=template("<pad>", "<unk>", {"<pad>": 1, "<unk>": 3}) if base == "roberta" else template("[BOS]", "[EOS]", IDS)), tokenizer_config=c)
        case(n + "token types by template", base, tokenizer=dict(post_processor=template("<s>", "</s>", {"<s>": 0, "</s>": 2}) if base == "roberta" else template("[CLS]", "[SEP]", IDS)), tokenizer_config=dict(c, model_input_names=["input_ids", "token_type_ids", "attention_mask"]))
        mask = names["mask_token"]
        mid = 4
        full = {str(i): dec(BASES[base]["added_tokens"][i]["content"]) for i in range(5)}
        case(n + "added_tokens_decoder as it is", base, tokenizer_config=dict(c, added_tokens_decoder=full))
        case(n + "added_tokens_decoder with a mask that strips", base, tokenizer_config=dict(c, added_tokens_decoder=dict(full, **{"4": dec(mask, lstrip=True, rstrip=True)})))
        case(n + "added_tokens_decoder single word", base, tokenizer_config=dict(c, added_tokens_decoder=dict(full, **{"4": dec(mask, single_word=True)})))
        case(n + "added_tokens_decoder not special", base, tokenizer_config=dict(c, added_tokens_decoder=dict(full, **{"1": dec(BASES[base]["added_tokens"][1]["content"], special=False, normalized=True)})))
        case(n + "added_tokens_decoder with only some", base, tokenizer_config=dict(c, added_tokens_decoder={"4": dec(mask)}))
        case(n + "added_tokens_decoder adds a word", base, tokenizer_config=dict(c, added_tokens_decoder=dict(full, **{"20": dec("lake" if base == "roberta" else "cat", special=False, normalized=True)})))
        case(n + "names as objects", base, tokenizer_config=dict(c, mask_token=dict(dec(mask, lstrip=True), __type="AddedToken")))
        case(n + "special_tokens_map with a mask that strips", base, tokenizer_config={k: v for k, v in c.items()}, special_tokens_map={"mask_token": {k: v for k, v in dec(mask, lstrip=True).items()}})
        case(n + "special_tokens_map with other cls and sep", base, tokenizer_config=c, special_tokens_map={"cls_token": "<pad>" if base == "roberta" else "[BOS]", "sep_token": "<unk>" if base == "roberta" else "[EOS]"})
        case(n + "special_tokens_map beside added_tokens_decoder", base, tokenizer_config=dict(c, added_tokens_decoder=full), special_tokens_map={"cls_token": "<pad>" if base == "roberta" else "[BOS]", "sep_token": "<unk>" if base == "roberta" else "[EOS]"})
        case(n + "other cls and sep", base, tokenizer_config=dict(c, cls_token="<pad>" if base == "roberta" else "[BOS]", sep_token="<unk>" if base == "roberta" else "[EOS]"))
        case(n + "other mask and pad", base, tokenizer_config=dict(c, mask_token="<unk>" if base == "roberta" else "[BOS]", pad_token="<unk>" if base == "roberta" else "[EOS]"))
        case(n + "added_tokens.json", base, tokenizer_config=c, added_tokens={"lake" if base == "roberta" else "sat": 20})
        case(n + "added_tokens.json beside added_tokens_decoder", base, tokenizer_config=dict(c, added_tokens_decoder=full), added_tokens={"lake" if base == "roberta" else "sat": 20})
        case(n + "tokens added in tokenizer.json only", base, tokenizer=dict(added_tokens=BASES[base]["added_tokens"] + [special(20, BASES[base]["model"]["vocab"] and [w for w, i in BASES[base]["model"]["vocab"].items() if i == 20][0], special=False)]), tokenizer_config=dict(c, added_tokens_decoder=full))
        case(n + "unk_token", base, tokenizer_config=dict(c, unk_token="<pad>" if base == "roberta" else "[BOS]"))
        case(n + "no names", base, tokenizer_config={"tokenizer_class": cls})
        case(n + "clean_up_tokenization_spaces", base, tokenizer_config=dict(c, clean_up_tokenization_spaces=True))
        case(n + "padding side left", base, tokenizer_config=dict(c, padding_side="left"))
for cls in (FAST, "BertTokenizer"):
    c = dict(B_NAMES, tokenizer_class=cls)
    for k, v in (("do_lower_case", False), ("do_lower_case", True), ("strip_accents", True), ("strip_accents", False), ("tokenize_chinese_chars", False)):
        case(f"bert {cls}: {k} {v}", "bert", tokenizer_config=dict(c, **{k: v}))
    case(f"bert {cls}: lower case off, accents off", "bert", tokenizer_config=dict(c, do_lower_case=False, strip_accents=True))
    case(f"bert {cls}: cased tokenizer.json", "bert", tokenizer=dict(normalizer=dict(BERT["normalizer"], lowercase=False)), tokenizer_config=c)
    case(f"bert {cls}: never_split", "bert", tokenizer_config=dict(c, never_split=["café"], do_basic_tokenize=False))
    case(f"bert {cls}: clean_text off", "bert", tokenizer=dict(normalizer=dict(BERT["normalizer"], clean_text=False)), tokenizer_config=c, rows=[["the\u0000cat\u200b sat", None]])
    case(f"bert {cls}: words of 3 characters", "bert", model=dict(max_input_chars_per_word=3), tokenizer_config=c)
    case(f"bert {cls}: other prefix", "bert", model=dict(continuing_subword_prefix="@@"), tokenizer_config=c)
    case(f"bert {cls}: other unk in tokenizer.json", "bert", model=dict(unk_token="[BOS]"), tokenizer_config=c)
for cls in (FAST, "RobertaTokenizer", "GPT2Tokenizer", "BertTokenizer"):
    c = dict(R_NAMES, tokenizer_class=cls)
    if cls != "BertTokenizer":
        case(f"roberta {cls}: add_prefix_space in tokenizer.json", "roberta", tokenizer=dict(pre_tokenizer=dict(BASES["roberta"]["pre_tokenizer"], add_prefix_space=True)), tokenizer_config=c)
        case(f"roberta {cls}: trim_offsets", "roberta", tokenizer_config=dict(c, trim_offsets=False))
        case(f"roberta {cls}: byte fallback and ignored merges", "roberta", model=dict(ignore_merges=True, byte_fallback=True), tokenizer_config=c)
        case(f"roberta {cls}: no unk in the model", "roberta", model=dict(unk_token=None), tokenizer_config=c)
case("bert RobertaTokenizer", "bert", tokenizer_config=dict(B_NAMES, tokenizer_class="RobertaTokenizer"))
case("roberta BertTokenizer", "roberta", tokenizer_config=dict(R_NAMES, tokenizer_class="BertTokenizer"))
case("bert GPT2Tokenizer", "bert", tokenizer_config=dict(B_NAMES, tokenizer_class="GPT2Tokenizer"))
case("bert DistilBertTokenizer", "bert", tokenizer_config=dict(B_NAMES, tokenizer_class="DistilBertTokenizer", do_lower_case=False))
case("bert ElectraTokenizer", "bert", tokenizer_config=dict(B_NAMES, tokenizer_class="ElectraTokenizer", do_lower_case=False))
case("roberta BartTokenizer", "roberta", tokenizer_config=dict(R_NAMES, tokenizer_class="BartTokenizer"), tokenizer=dict(normalizer={"type": "Lowercase"}))
case("roberta LongformerTokenizer", "roberta", tokenizer_config=dict(R_NAMES, tokenizer_class="LongformerTokenizer"), tokenizer=dict(normalizer={"type": "Lowercase"}))
case("roberta TokenizersBackend", "roberta", tokenizer_config=dict(R_NAMES, tokenizer_class="TokenizersBackend"), tokenizer=dict(normalizer={"type": "Lowercase"}))
case("roberta auto_map", "roberta", tokenizer_config=dict(R_NAMES, tokenizer_class="MyTokenizer", auto_map={"AutoTokenizer": ["my.MyTokenizer", None]}), tokenizer=dict(normalizer={"type": "Lowercase"}))
case("roberta auto_map without a class", "roberta", tokenizer_config=dict(R_NAMES, auto_map={"AutoTokenizer": ["my.MyTokenizer", None]}), tokenizer=dict(normalizer={"type": "Lowercase"}))
G = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
gt = lambda: {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}}
for cls in (FAST, "GPT2Tokenizer", None):
    c = dict(G)
    if cls: c["tokenizer_class"] = cls
    n = f"gpt2 {cls}: "
    case(n + "plain", "gpt2", tokenizer_config=c)
    case(n + "add_prefix_space", "gpt2", tokenizer_config=dict(c, add_prefix_space=True))
    case(n + "add_prefix_space in tokenizer.json", "gpt2", tokenizer=dict(pre_tokenizer=dict(BASES["gpt2"]["pre_tokenizer"], add_prefix_space=True)), tokenizer_config=c)
    case(n + "add_bos_token", "gpt2", tokenizer_config=dict(c, add_bos_token=True, add_eos_token=True))
    case(n + "post-processor with bos", "gpt2", tokenizer=dict(post_processor=gt()), tokenizer_config=c)
    case(n + "post-processor with bos and added names", "gpt2", tokenizer=dict(post_processor=gt()), tokenizer_config=dict(c, add_bos_token=False))
    case(n + "lower case normalizer", "gpt2", tokenizer=dict(normalizer={"type": "Lowercase"}), tokenizer_config=c)
    case(n + "pad token added", "gpt2", tokenizer_config=dict(c, pad_token="[PAD]"), rows=[["a [PAD] b", None]])
    case(n + "extra special token that is a word", "gpt2", tokenizer_config=dict(c, extra_special_tokens=["lake"]))
    case(n + "split special tokens", "gpt2", tokenizer_config=dict(c, split_special_tokens=True))
    case(n + "other eos", "gpt2", tokenizer_config=dict(c, eos_token="lake"))

    case(n + "clean up", "gpt2", tokenizer_config=dict(c, clean_up_tokenization_spaces=True), rows=[["Who ? I 'm here , he 's not , they do n't .", None]])
    case(n + "clean up byte pairs", "gpt2", tokenizer_config=dict(c, clean_up_tokenization_spaces=True, clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output=True), rows=[["Who ? I 'm here , he 's not , they do n't .", None]])

def build(case, folder):
    t = copy.deepcopy(BASES[case["base"]]); t.update(copy.deepcopy(case["tokenizer"])); t["model"].update(case["model"])
    (folder / "tokenizer.json").write_text(json.dumps(t))
    (folder / "config.json").write_text(json.dumps(dict(CONFIG[case["base"]], **case["config"])))
    for key in ("tokenizer_config", "special_tokens_map", "added_tokens"):
        if case[key] is not None:
            (folder / f"{key}.json").write_text(json.dumps(case[key]))
done = []
for one in cases:
    folder = Path(tempfile.mkdtemp())
    build(one, folder)
    try:
        t = AutoTokenizer.from_pretrained(str(folder))
        ids, types = [], []
        for text, pair in one["rows"]:
            e = t(text, pair, truncation=True, max_length=one["max_length"], add_special_tokens=one["base"] != "gpt2")
            ids.append(e["input_ids"]); types.append(e.get("token_type_ids"))
        expected = {"class": type(t).__name__, "ids": ids}
        if any(any(kinds or []) for kinds in types):
            expected["type_ids"] = [kinds or [0] * len(row) for kinds, row in zip(types, ids)]
        if one["base"] == "gpt2":
            expected["decoded"] = [t.decode(row, skip_special_tokens=True) for row in ids]
        else:
            expected["tokens"] = {k: getattr(t, k + "_token_id") for k in ("sep", "cls", "pad", "mask")}
        one["expected"] = expected
    except Exception as e:
        one["expected"] = {"error": f"{type(e).__name__}: {e}"[:300]}
    if one["rows"] == ROWS[one["base"]]:
        del one["rows"]
    done.append({key: value for key, value in one.items() if value or key == "tokenizer_config" and value is not None})
    shutil.rmtree(folder)
lines = [json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in done]
head = json.dumps({"transformers": transformers.__version__, "rows": ROWS, "bert": BERT}, ensure_ascii=False)
out.write_text(head[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n")

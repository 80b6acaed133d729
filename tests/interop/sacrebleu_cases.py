"""Writes tests/fixtures/sacrebleu/cases.json: texts, with the scores that sacreBLEU gives them.

    python tests/interop/sacrebleu_cases.py

A reference that is None (null) is missing.
"""

import json
import logging
from pathlib import Path

import sacrebleu
from sacrebleu.metrics import BLEU, CHRF, TER

OUT = Path(__file__).parent.parent / "fixtures" / "sacrebleu" / "cases.json"
MAT = "The cat sat on the mat."
# The characters that are white space to Python, and some that only look like it.
SPACES = [0x9, 0xB, 0xC, 0xD, *range(0x1C, 0x20), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)]
SPACES += [0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
NO_SPACES = [0x0, 0x1B, 0x7F, 0x180E, 0x200B, 0x200D, 0x2060, 0xFEFF]


def cases():
    yield "equal", [MAT], [[MAT]]
    yield "another case", ["the CAT Sat on THE mat."], [[MAT]]
    yield "several references", [MAT, "A dog."], [["The cat lay on the mat.", "A dog barks."], ["On the mat sat a cat.", "A dog!"]]
    yield "equal scores", ["ab cd"], [["ab ce"], ["xb cd"]]
    yield "missing references", [MAT, "A dog."], [["The cat is on it.", None], [None, "One dog."], [None, "A dog ."]]
    yield "no hypothesis", [""], [[MAT]]
    yield "one of two hypotheses is empty", ["", "A dog barks at a cat."], [[MAT, "A dog barks at a cat!"]]
    yield "blank hypothesis", ["\x1c \u3000"], [[MAT]]
    yield "one character", ["a"], [["a"]]
    yield "words of one character", ["a b c , d . e !"], [["a b , c d ! e"]]
    yield "only punctuation", ["...!?"], [["..!"]]
    yield "punctuation at words", ["(The \"cat\") sat, on... the mat!!"], [["\"The (cat)\" sat; on the 'mat'?"]]
    yield "one mark on each side", ["(hi) (hi hi) -a- é. ¿que? .a"], [["(hi ) ( hi hi ) - a - é . ¿ que ? . a"]]
    yield "numbers", ["It costs 3.5, or 1,000.00 - not 20-25%."], [["It costs 3.50 or 1,000 , not 20 - 25 %"]]
    yield "entities", ["A &amp; B &lt;x&gt; &quot;q&quot; <skipped>"], [["A & B < x > \" q \""]]
    yield "accents", ["Café Brazil’s naïve façade – 50 €"], [["Cafe Brazil's naive facade - 50 €"]]
    yield "combining marks", ["Cafe\u0301 nai\u0308ve"], [["Café naïve"]]
    yield "Greek", ["Ο ΟΔΟΣ ΣΑΣ ΕΊΝΑΙ ΕΔΏ."], [["ο οδος σας είναι εδώ."]]
    yield "Turkish", ["İSTANBUL DİYARBAKIR Iğdır"], [["i̇stanbul diyarbakir ığdır"]]
    yield "Russian", ["Кошка сидела на коврике."], [["Кошка лежала на ковре, да."]]
    yield "Chinese", ["猫坐在垫子上。"], [["猫躺在垫子上。"]]
    yield "Japanese with wide spaces", ["猫が　マットに　座った。"], [["猫が マットに座った。"]]
    yield "Arabic", ["جلست القطة على السجادة."], [["القطة جلست على السجادة ،"]]
    yield "emoji", ["👍🏽 good 👨‍👩‍👧 day"], [["👍 good 👨‍👩‍👧 days"]]
    yield "shifted words", ["on the mat the cat sat down quietly today"], [["today the cat sat down quietly on the mat"]]
    yield "a longer hypothesis", ["a b c d e f g h a b c d"], [["a b c"]]
    yield "a shorter hypothesis", ["a b"], [["a b c d e f g h a b c d"]]
    yield "line ends inside", ["the mid-\npriced place\nis near"], [["the midpriced place is near"]]
    yield "a hyphen and line ends at the end", ["well-\n\n"], [["well"]]
    yield "tabs and many spaces", ["\t the   cat\t\tsat \n"], [["the cat sat"]]
    for c in SPACES + NO_SPACES:
        text = f"{chr(c)}The cat{chr(c)}sat on{chr(c)}{chr(c)}the mat.{chr(c)}"
        yield f"U+{c:04X}", [text], [[MAT]]
        yield f"U+{c:04X} in the reference", ["The cat sat on the mats!"], [[text], [f"A mat{chr(c)}."]]


def main():
    logging.disable(logging.WARNING)
    metrics = {
        "bleu_13a": BLEU(),
        "bleu_none": BLEU(tokenize="none"),
        "chrf": CHRF(),
        "chrf++": CHRF(word_order=2),
        "ter": TER(),
    }
    rows = []
    for name, hypotheses, references in cases():
        scores = {key: metric.corpus_score(hypotheses, references).score for key, metric in metrics.items()}
        rows.append({"name": name, "hypotheses": hypotheses, "references": references, **scores})
    OUT.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    OUT.write_text(f'{{"sacrebleu": "{sacrebleu.__version__}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()

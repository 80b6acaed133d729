//! The rules that sentences follow or break, one in each sentence.
//!
//! A rule draws the same phrases whether it is followed or broken. Where possible, a sentence breaks it by exchanging
//! two words or by another form of a word, so that counts of words or of pairs of neighbours reveal little: the words
//! that must agree are apart, with words of both kinds between them. No word occurs only in unacceptable sentences.

mod agreement;
mod event;
mod licensing;
mod noun_phrase;
mod pronouns;
mod questions;
mod verbs;
mod word_order;

use super::grammar::{Grammar, Line};
use agreement::{agreement, coordination, existential, relative_agreement};
use licensing::{comparative, correlative, polarity};
use noun_phrase::{count_mass, determiner, quantifier};
use pronouns::{case, reciprocal, reflexive, tag_question};
use questions::{filler_gap, inversion, island};
use verbs::{complement, dative, infinitive, passive, tense, transitivity, verb_form};
use word_order::{adverb, word_order};

/// Makes a sentence that follows the rule (`true`) or breaks it once.
type Rule = fn(&mut Grammar, bool) -> Line;

/// The names and rules of all phenomena.
pub static PHENOMENA: [(&str, Rule); 26] = [
    ("adverb", adverb),
    ("agreement", agreement),
    ("case", case),
    ("comparative", comparative),
    ("complement", complement),
    ("coordination", coordination),
    ("correlative", correlative),
    ("count-mass", count_mass),
    ("dative", dative),
    ("determiner", determiner),
    ("existential", existential),
    ("filler-gap", filler_gap),
    ("infinitive", infinitive),
    ("inversion", inversion),
    ("island", island),
    ("passive", passive),
    ("polarity", polarity),
    ("quantifier", quantifier),
    ("reciprocal", reciprocal),
    ("reflexive", reflexive),
    ("relative-agreement", relative_agreement),
    ("tag-question", tag_question),
    ("tense", tense),
    ("transitivity", transitivity),
    ("verb-form", verb_form),
    ("word-order", word_order),
];

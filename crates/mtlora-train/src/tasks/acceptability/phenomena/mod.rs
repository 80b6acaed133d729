//! What a sentence can be an example of: one rule each, kept or broken.
//!
//! A rule draws the same phrases whether it is kept or broken, and where it can it breaks by exchanging two words or a
//! word for another form, so that counting words, or pairs of neighbours, tells little: what must agree stands apart,
//! and other words of both kinds stand between. No word occurs in unacceptable sentences alone.

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

/// Makes a sentence that keeps the rule (`true`) or breaks it once.
type Rule = fn(&mut Grammar, bool) -> Line;

/// Every phenomenon there is.
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

//! Facts drawn at random, and sentences that state them.

use rand_chacha::ChaCha8Rng;

use super::lexicon::{Attribute, KINDS, Kind, LAST_NAMES, MEN, Subjects, Values, WOMEN};
use crate::tasks::data_to_text::linearise;
use crate::tasks::synthetic::{Choose, article, held_out, random};

/// One of this many facts is for the dev and test sets. The others are for the train set and the corpus.
const HELD_OUT: u64 = 6;
/// The numbers of facts in a record, each as often as it is to be drawn.
const NUMBERS: [usize; 8] = [1, 2, 2, 3, 3, 3, 4, 4];

/// The sets that a fact may be in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Train,
    HeldOut,
}

/// A subject and the facts about it.
#[derive(Clone)]
pub struct Facts {
    kind: &'static Kind,
    subject: String,
    pronoun: &'static str,
    facts: Vec<(&'static Attribute, String)>,
}

impl Facts {
    /// The input of a model: `name : Ada Miller | job : painter`.
    pub fn input(&self) -> String {
        let subject = (self.kind.key, self.subject.as_str());
        let facts = self
            .facts
            .iter()
            .map(|(attribute, value)| (attribute.key, value.as_str()));
        linearise::slots([subject].into_iter().chain(facts))
    }
}

/// A source of random facts and sentences. A seed gives the same ones on every platform.
pub struct Grammar {
    random: ChaCha8Rng,
}

impl Choose for Grammar {
    fn random(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }
}

impl Grammar {
    /// Each `stream` of a seed gives independent facts and sentences for another purpose.
    pub fn new(seed: u64, stream: u64) -> Self {
        let random = random(seed, stream);
        Self { random }
    }

    /// One to four facts about a subject, all of which may be in the sets of `side`.
    pub fn facts(&mut self, side: Side) -> Facts {
        let number = self.pick(&NUMBERS);
        // This draws subjects until one has enough facts.
        loop {
            let kind = self.pick(&[&KINDS[0], &KINDS[1], &KINDS[2], &KINDS[3], &KINDS[4]]);
            let (subject, pronoun) = self.subject(&kind.subjects);
            let mut facts = Vec::new();
            for attribute in &kind.attributes {
                if let Some(value) = self.value(&subject, attribute, side) {
                    facts.push((attribute, value));
                }
            }
            while facts.len() > number {
                facts.remove(self.below(facts.len()));
            }
            if facts.len() == number {
                return Facts {
                    kind,
                    subject,
                    pronoun,
                    facts,
                };
            }
        }
    }

    fn subject(&mut self, subjects: &Subjects) -> (String, &'static str) {
        match subjects {
            Subjects::People => self.person(),
            Subjects::Names(names, pronoun) => (self.pick(names).to_string(), pronoun),
            Subjects::Pairs(first, second, pronoun) => {
                let name = format!("{} {}", self.pick(first), self.pick(second));
                (name, pronoun)
            }
        }
    }

    fn person(&mut self) -> (String, &'static str) {
        let (first_names, pronoun) = self.pick(&[(&WOMEN, "She"), (&MEN, "He")]);
        let name = format!("{} {}", self.pick(first_names), self.pick(&LAST_NAMES));
        (name, pronoun)
    }

    /// A value that the subject may have on this side, or `None` if there is no such value.
    fn value(&mut self, subject: &str, attribute: &Attribute, side: Side) -> Option<String> {
        let may_be = |value: &str| side_of(subject, attribute.key, value) == side;
        match &attribute.values {
            Values::Words(words) => {
                let words: Vec<&str> = words.iter().copied().filter(|word| may_be(word)).collect();
                (!words.is_empty()).then(|| self.pick(&words).to_string())
            }
            Values::People => loop {
                let (name, _) = self.person();
                if may_be(&name) && name != subject {
                    return Some(name);
                }
            },
        }
    }

    /// One or two of the facts.
    pub fn part(&mut self, facts: &Facts) -> Facts {
        let mut part = facts.clone();
        let number = 1 + self.below(2);
        while part.facts.len() > number {
            part.facts.remove(self.below(part.facts.len()));
        }
        part
    }

    /// A text of one or two sentences that states all of the facts.
    pub fn text(&mut self, facts: &Facts) -> String {
        let mut left: Vec<_> = facts.facts.iter().collect();
        let mut text = String::new();
        let mut subject = format!("{}{}", facts.kind.article, facts.subject);
        // The last fact is always a predicate.
        if left.len() > 1 {
            match self.below(3) {
                0 => {
                    let (attribute, value) = left.remove(self.below(left.len()));
                    let aside = fill(self.pick(attribute.asides), value);
                    subject.push_str(&format!(", {aside},"));
                }
                1 => {
                    let can_open = |at: &usize| !left[*at].0.openings.is_empty();
                    let those: Vec<usize> = (0..left.len()).filter(can_open).collect();
                    if !those.is_empty() {
                        let (attribute, value) = left.remove(self.pick(&those));
                        text = fill(self.pick(attribute.openings), value);
                        text.push_str(", ");
                    }
                }
                _ => (),
            }
        }
        let mut predicates: Vec<String> = Vec::with_capacity(left.len());
        for (attribute, value) in left {
            predicates.push(fill(self.pick(attribute.predicates), value));
        }
        // A sentence has at most three predicates.
        let first = match predicates.len() {
            1 => 1,
            2 => self.pick(&[1, 2, 2]),
            3 => self.pick(&[1, 2, 3]),
            _ => 2,
        };
        let second = predicates.split_off(first);
        text.push_str(&format!("{subject} {}.", listed(&predicates)));
        if !second.is_empty() {
            text.push_str(&format!(" {} {}.", facts.pronoun, listed(&second)));
        }
        capital(&text)
    }
}

/// The sets that a fact may be in.
fn side_of(subject: &str, key: &str, value: &str) -> Side {
    let bytes = [subject, key, value].into_iter().flat_map(str::bytes);
    if held_out(bytes, HELD_OUT) {
        Side::HeldOut
    } else {
        Side::Train
    }
}

/// Inserts the value and its article into a phrase.
fn fill(words: &str, value: &str) -> String {
    words.replace("{a}", article(value)).replace("{}", value)
}

/// `a`, `a and b`, `a, b and c`.
fn listed(predicates: &[String]) -> String {
    match predicates {
        [] => String::new(),
        [only] => only.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_record_is_written_in_many_ways() {
        let attributes = &KINDS[0].attributes;
        let facts = Facts {
            kind: &KINDS[0],
            subject: "Ada Miller".into(),
            pronoun: "She",
            facts: vec![
                (&attributes[0], "actor".into()),
                (&attributes[2], "1975".into()),
            ],
        };
        assert_eq!(
            facts.input(),
            "name : Ada Miller | job : actor | born : 1975"
        );
        let mut grammar = Grammar::new(0, 0);
        let texts: BTreeSet<String> = (0..500).map(|_| grammar.text(&facts)).collect();
        for text in [
            "Ada Miller is an actor and was born in 1975.",
            "Ada Miller works as an actor. She was born in 1975.",
            "Ada Miller, an actor, was born in 1975.",
            "Born in 1975, Ada Miller is an actor.",
        ] {
            assert!(texts.contains(text), "{texts:#?}");
        }
        assert_eq!(texts.len(), 9, "{texts:#?}");
    }

    #[test]
    fn facts_are_of_their_side() {
        let mut grammar = Grammar::new(1, 0);
        for side in [Side::Train, Side::HeldOut] {
            for _ in 0..2000 {
                let facts = grammar.facts(side);
                assert!((1..=4).contains(&facts.facts.len()));
                for (attribute, value) in &facts.facts {
                    assert!(side_of(&facts.subject, attribute.key, value) == side);
                }
            }
        }
    }
}

//! A subject, a verb and an object, which several rules use.

use crate::tasks::acceptability::grammar::{Grammar, Kind, NounPhrase};
use crate::tasks::acceptability::lexicon::{Form, TO_ANIMATE, TO_THING, Verb};
use crate::tasks::synthetic::Choose;

/// An event in the past: a subject, a verb and an object.
pub struct Event {
    pub subject: NounPhrase,
    pub verb: &'static Verb,
    pub object: NounPhrase,
    /// The word that asks for the object: `who` or `what`.
    pub asks: &'static str,
}

impl Event {
    pub fn draw(g: &mut Grammar) -> Self {
        let subject = g.person();
        let (verb, kind, asks) = if g.once_in(2) {
            (g.entry(&TO_THING), Kind::Thing, "what")
        } else {
            (g.entry(&TO_ANIMATE), Kind::Person, "who")
        };
        Self {
            subject,
            verb,
            object: g.any(kind),
            asks,
        }
    }

    pub fn past(&self) -> [&'static str; 1] {
        [self.verb.form(Form::Past)]
    }

    pub fn base(&self) -> [&'static str; 1] {
        [self.verb.form(Form::Base)]
    }
}

//! Random phrases, which are always well formed.

use rand_chacha::ChaCha8Rng;

use super::lexicon::{
    ADJUNCT, ANIMALS, ANIMATE_ADJECTIVES, BRIDGE, COMMON, Form, GENDERED, GRADABLE, Gender,
    Gradable, INTRANSITIVE, MANNER, NAMES, NEAR, Noun, Number, PAST_TIMES, PLACES,
    THING_ADJECTIVES, THINGS, TO_ANIMATE, TO_THING, Verb,
};
use crate::tasks::synthetic::{Choose, article, random};

/// A sequence of words; an element may consist of two words (`more careful`).
pub type Words = Vec<&'static str>;

/// Concatenates phrases, which are words or anything that can be borrowed as a slice of words.
macro_rules! words {
    ($($part:expr),+ $(,)?) => {{
        let mut all = Vec::new();
        $(all.extend_from_slice($part.as_ref());)+
        all
    }};
}
pub(super) use words;

/// The words of a sentence, and whether it is a question.
pub struct Line {
    words: Words,
    question: bool,
}

impl Line {
    pub fn question(words: Words) -> Self {
        Self {
            words,
            question: true,
        }
    }

    pub fn statement(words: Words) -> Self {
        Self {
            words,
            question: false,
        }
    }

    /// The written sentence, with a capital letter first and a full stop or a question mark at the end.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for word in &self.words {
            if text.is_empty() {
                let mut letters = word.chars();
                text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
                text.push_str(letters.as_str());
            } else {
                if *word != "," {
                    text.push(' ');
                }
                text.push_str(word);
            }
        }
        text.push(if self.question { '?' } else { '.' });
        text
    }
}

/// The kind of thing that a noun phrase refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// People whose gender the noun shows.
    Gendered,
    /// Any people.
    Person,
    Animal,
    Thing,
    Place,
}

/// A noun phrase with the number and gender that other words agree with.
#[derive(Clone)]
pub struct NounPhrase {
    pub words: Words,
    pub number: Number,
    pub gender: Gender,
}

impl Number {
    pub fn other(self) -> Self {
        match self {
            Self::Singular => Self::Plural,
            Self::Plural => Self::Singular,
        }
    }

    /// This number if `acceptable` is true, and otherwise the other one, to break a rule.
    pub fn or_wrong(self, acceptable: bool) -> Self {
        if acceptable { self } else { self.other() }
    }

    pub fn choose(self, singular: &'static str, plural: &'static str) -> &'static str {
        match self {
            Self::Singular => singular,
            Self::Plural => plural,
        }
    }

    pub fn is(self) -> &'static str {
        self.choose("is", "are")
    }

    pub fn was(self) -> &'static str {
        self.choose("was", "were")
    }

    pub fn has(self) -> &'static str {
        self.choose("has", "have")
    }

    pub fn does(self) -> &'static str {
        self.choose("does", "do")
    }
}

impl NounPhrase {
    /// `he`, `she`, `it`, `they`.
    pub fn nominative(&self) -> &'static str {
        match (self.number, self.gender) {
            (Number::Plural, _) => "they",
            (_, Gender::Masculine | Gender::Common) => "he",
            (_, Gender::Feminine) => "she",
            (_, Gender::Neuter) => "it",
        }
    }

    /// `himself`, `herself`, `itself`, `themselves`.
    pub fn reflexive(&self) -> &'static str {
        match (self.number, self.gender) {
            (Number::Plural, _) => "themselves",
            (_, Gender::Masculine | Gender::Common) => "himself",
            (_, Gender::Feminine) => "herself",
            (_, Gender::Neuter) => "itself",
        }
    }

    /// The phrase with more words after it. Its number and gender stay the same.
    pub fn with(mut self, more: &[&'static str]) -> Self {
        self.words.extend_from_slice(more);
        self
    }
}

impl AsRef<[&'static str]> for NounPhrase {
    fn as_ref(&self) -> &[&'static str] {
        &self.words
    }
}

/// A source of random phrases. A seed gives the same phrases on every platform.
pub struct Grammar {
    random: ChaCha8Rng,
}

impl Choose for Grammar {
    fn random(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }
}

impl Grammar {
    /// Each `stream` of a seed gives independent phrases for another purpose.
    pub fn new(seed: u64, stream: u64) -> Self {
        let random = random(seed, stream);
        Self { random }
    }

    /// One of the lexicon's entries.
    pub fn entry<T>(&mut self, of: &'static [T]) -> &'static T {
        &of[self.below(of.len())]
    }

    pub fn number(&mut self) -> Number {
        self.pick(&[Number::Singular, Number::Plural])
    }

    /// A noun and an adjective that suits it.
    pub fn noun(&mut self, kind: Kind) -> (&'static Noun, &'static str) {
        let noun = match kind {
            Kind::Gendered => self.entry(&GENDERED),
            Kind::Person if self.once_in(2) => self.entry(&GENDERED),
            Kind::Person => self.entry(&COMMON),
            Kind::Animal => self.entry(&ANIMALS),
            Kind::Thing => self.entry(&THINGS),
            Kind::Place => self.entry(&PLACES),
        };
        (noun, self.adjective(kind))
    }

    pub fn adjective(&mut self, kind: Kind) -> &'static str {
        match kind {
            Kind::Gendered | Kind::Person | Kind::Animal => self.pick(&ANIMATE_ADJECTIVES),
            Kind::Thing | Kind::Place => self.pick(&THING_ADJECTIVES),
        }
    }

    /// A person or an animal.
    pub fn animate(&mut self) -> Kind {
        self.pick(&[Kind::Person, Kind::Person, Kind::Animal])
    }

    /// A determiner, sometimes an adjective, and a noun: `the old dogs`.
    pub fn phrase(&mut self, kind: Kind, number: Number) -> NounPhrase {
        let (noun, adjective) = self.noun(kind);
        let head = number.choose(noun.singular, noun.plural);
        let inner: &[_] = if self.once_in(4) {
            &[adjective, head]
        } else {
            &[head]
        };
        let determiner = match number {
            Number::Singular => self.pick(&["the", "the", "the", "a", "this", "my", "our"]),
            Number::Plural => {
                self.pick(&["the", "the", "the", "these", "two", "three", "my", "our"])
            }
        };
        let determiner = match (determiner, inner.first()) {
            ("a", Some(next)) => article(next),
            _ => determiner,
        };
        NounPhrase {
            words: [&[determiner], inner].concat(),
            number,
            gender: noun.gender,
        }
    }

    /// A phrase of random number, or a name.
    pub fn person(&mut self) -> NounPhrase {
        if self.once_in(4) {
            let name = self.entry(&NAMES);
            return NounPhrase {
                words: vec![name.singular],
                number: Number::Singular,
                gender: name.gender,
            };
        }
        let number = self.number();
        self.phrase(Kind::Person, number)
    }

    pub fn any(&mut self, kind: Kind) -> NounPhrase {
        let number = self.number();
        self.phrase(kind, number)
    }

    /// `near the old castles`, with a noun of any kind.
    pub fn near(&mut self) -> Words {
        let kind = self.pick(&[Kind::Person, Kind::Animal, Kind::Thing, Kind::Place]);
        let number = self.number();
        self.near_a(kind, number).words
    }

    /// `near the old castles`, with the number and gender of its noun, which could be mistaken for those of the subject.
    pub fn near_a(&mut self, kind: Kind, number: Number) -> NounPhrase {
        let place = self.pick(&NEAR);
        let mut phrase = self.phrase(kind, number);
        phrase.words = [place, phrase.words.as_slice()].concat();
        phrase
    }

    /// A phrase that is followed by another one, of any number, with which the verb does not agree.
    pub fn distracted(&mut self, kind: Kind, number: Number) -> NounPhrase {
        let phrase = self.phrase(kind, number);
        let near = self.near();
        phrase.with(&near)
    }

    /// The phrase, sometimes with a quantifier as its determiner.
    pub fn quantified(&mut self, mut phrase: NounPhrase) -> NounPhrase {
        if self.once_in(3)
            && let Some(determiner) = phrase.words.first_mut()
        {
            *determiner = match phrase.number {
                Number::Singular => self.pick(&["no", "every", "each"]),
                Number::Plural => self.pick(&["no", "few", "most", "both"]),
            };
        }
        phrase
    }

    /// A phrase, which half of the time is [`Self::distracted`].
    pub fn subject(&mut self, kind: Kind, number: Number) -> NounPhrase {
        if self.once_in(2) {
            self.distracted(kind, number)
        } else {
            self.phrase(kind, number)
        }
    }

    /// A verb that needs an object, and the kind of that object.
    pub fn transitive(&mut self) -> (&'static Verb, Kind) {
        if self.once_in(2) {
            (self.entry(&TO_THING), Kind::Thing)
        } else {
            (self.entry(&TO_ANIMATE), self.animate())
        }
    }

    pub fn intransitive(&mut self) -> &'static Verb {
        self.entry(&INTRANSITIVE)
    }

    /// A verb in `form` with its object, if it needs one.
    pub fn verb_phrase(&mut self, form: Form) -> Words {
        if self.once_in(2) {
            return vec![self.intransitive().form(form)];
        }
        let (verb, kind) = self.transitive();
        let object = self.any(kind);
        [&[verb.form(form)], object.words.as_slice()].concat()
    }

    /// A finite verb phrase that shows the number of its subject.
    pub fn agreeing(&mut self, kind: Kind, number: Number) -> Words {
        if matches!(kind, Kind::Thing | Kind::Place) || self.once_in(4) {
            let be = self.pick(&[number.is(), number.was()]);
            return match self.below(3) {
                0 => [&[be], self.near().as_slice()].concat(),
                1 => vec![be, "very", self.adjective(kind)],
                _ => vec![be, self.adjective(kind)],
            };
        }
        match self.below(4) {
            0 => [
                &[number.has()],
                self.verb_phrase(Form::Participle).as_slice(),
            ]
            .concat(),
            1 => [&[number.is()], self.verb_phrase(Form::Ing).as_slice()].concat(),
            _ => self.verb_phrase(match number {
                Number::Singular => Form::Third,
                Number::Plural => Form::Base,
            }),
        }
    }

    /// A clause in the past tense.
    pub fn clause(&mut self) -> Words {
        let subject = self.person();
        [subject.words, self.verb_phrase(Form::Past)].concat()
    }

    /// Nothing, or words that may follow a gap or a verb phrase in any tense. They cannot be read as an object.
    pub fn place_or_manner(&mut self) -> Words {
        match self.below(3) {
            0 => self.near(),
            1 => vec![self.pick(&MANNER)],
            _ => Words::new(),
        }
    }

    /// Nothing, or words that may follow a verb phrase in the past tense that has its object.
    pub fn ending(&mut self) -> Words {
        match self.below(4) {
            0 => self.pick(&PAST_TIMES).to_vec(),
            1 => [&[self.pick(&ADJUNCT)], self.clause().as_slice()].concat(),
            _ => self.place_or_manner(),
        }
    }

    /// An adjective for comparing people.
    pub fn gradable(&mut self) -> &'static Gradable {
        self.entry(&GRADABLE)
    }

    /// A statement that somebody said these words.
    pub fn said(&mut self, words: Words) -> Line {
        let speaker = self.person();
        let says = self.entry(&BRIDGE).form(Form::Past);
        Line::statement([speaker.words.as_slice(), &[says, "that"], &words].concat())
    }

    /// The statement, sometimes with a clause around it or after it, which does not affect the rule that it tests.
    pub fn in_context(&mut self, words: Words) -> Line {
        match self.below(8) {
            0 => self.said(words),
            1 => {
                let subject = self.person();
                let more = self.intransitive().form(Form::Past);
                let join = self.pick(&["and", "but"]);
                Line::statement(
                    [
                        words.as_slice(),
                        &[",", join],
                        subject.words.as_slice(),
                        &[more],
                    ]
                    .concat(),
                )
            }
            _ => Line::statement(words),
        }
    }
}

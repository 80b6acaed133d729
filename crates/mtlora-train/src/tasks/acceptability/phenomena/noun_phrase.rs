//! Determiners and quantifiers fit the noun that they belong to.

use crate::tasks::acceptability::grammar::{Grammar, Kind, Line, words};
use crate::tasks::acceptability::lexicon::{Form, MASS, Number, TO_THING};
use crate::tasks::synthetic::Choose;

/// `too much old furniture` / `too many old furniture`.
pub fn count_mass(g: &mut Grammar, acceptable: bool) -> Line {
    let mass = g.pick(&MASS);
    let (noun, old) = g.noun(Kind::Thing);
    let of_mass = g.once_in(2);
    let subject = g.person();
    let verb = g.entry(&TO_THING);
    let adjective: &[_] = if g.once_in(4) { &[] } else { &[old] };
    let much = if of_mass == acceptable {
        "much"
    } else {
        "many"
    };
    let thing = [if of_mass { mass } else { noun.plural }];
    match g.below(4) {
        0 => {
            let number = Number::Singular.or_wrong(acceptable);
            let near = g.near();
            let be = [g.pick(&[number.is(), number.was()])];
            let dirty = [g.adjective(Kind::Thing)];
            g.in_context(words!(["the"], adjective, [mass], near, be, dirty))
        }
        1 => Line::question(words!(
            ["how", much],
            adjective,
            thing,
            ["did"],
            subject,
            [verb.form(Form::Base)]
        )),
        2 => {
            let determiner = g.pick(&["another", "every", "several", "two", "these"]);
            let number = match determiner {
                "another" | "every" => Number::Singular,
                _ => Number::Plural,
            };
            let thing = if acceptable {
                number.choose(noun.singular, noun.plural)
            } else {
                mass
            };
            // Mass nouns are equally frequent in acceptable sentences.
            let (determiner, thing) = if acceptable && of_mass {
                (g.pick(&["the", "some", "this", "my"]), mass)
            } else {
                (determiner, thing)
            };
            let carried = [verb.form(Form::Past), determiner];
            g.in_context(words!(subject, carried, adjective, [thing]))
        }
        _ => {
            let carried = [verb.form(Form::Past), g.pick(&["too", "so"]), much];
            g.in_context(words!(subject, carried, adjective, thing))
        }
    }
}

/// `The boy carried a heavy box` / `The boy carried heavy box`.
pub fn determiner(g: &mut Grammar, acceptable: bool) -> Line {
    let subject = g.person();
    let carried = [g.entry(&TO_THING).form(Form::Past)];
    let (noun, old) = g.noun(Kind::Thing);
    let number = g.number();
    let adjective: &[_] = if g.once_in(4) { &[] } else { &[old] };
    let thing = [number.choose(noun.singular, noun.plural)];
    let ending = g.ending();
    let determiners: &[_] = match (acceptable, g.below(2), number) {
        (true, 0, Number::Plural) => &[],
        (true, _, Number::Plural) => &[g.pick(&["the", "my", "our", "these"])],
        (true, _, Number::Singular) => &[g.pick(&["the", "my", "our", "this", "every"])],
        (false, 0, Number::Singular) => &[],
        (false, _, Number::Singular) => g.pick(&[
            &["the", "my"],
            &["the", "this"],
            &["every", "the"],
            &["our", "the"],
        ]),
        (false, _, Number::Plural) => g.pick(&[
            &["the", "my"],
            &["the", "these"],
            &["my", "the"],
            &["our", "the"],
        ]),
    };
    g.in_context(words!(
        subject,
        carried,
        determiners,
        adjective,
        thing,
        ending
    ))
}

/// `another old red cup` / `another old red cups`.
pub fn quantifier(g: &mut Grammar, acceptable: bool) -> Line {
    let number = g.number();
    let determiner = [match number {
        Number::Singular => g.pick(&["each", "every", "this", "that", "another", "one"]),
        Number::Plural => g.pick(&["these", "those", "many", "several", "both", "most", "few"]),
    }];
    let as_subject = g.once_in(2);
    let kind = if as_subject {
        Kind::Person
    } else {
        Kind::Thing
    };
    let (noun, first) = g.noun(kind);
    let second = g.adjective(kind);
    let adjectives: &[_] = match g.below(4) {
        0 => &[],
        1 if first != second => &[first, second],
        _ => &[first],
    };
    let shown = number.or_wrong(acceptable);
    let phrase = words!(
        determiner,
        adjectives,
        [shown.choose(noun.singular, noun.plural)]
    );
    if as_subject {
        let slept = g.verb_phrase(Form::Past);
        g.in_context(words!(phrase, slept))
    } else {
        let subject = g.person();
        let carried = [g.entry(&TO_THING).form(Form::Past)];
        let ending = g.ending();
        g.in_context(words!(subject, carried, phrase, ending))
    }
}

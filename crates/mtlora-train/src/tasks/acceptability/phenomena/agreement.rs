//! The verb agrees with its subject, whatever stands between them.

use crate::tasks::acceptability::grammar::{Grammar, Kind, Line, words};
use crate::tasks::acceptability::lexicon::{FREQUENCY, Form, Number, TO_ANIMATE};
use crate::tasks::synthetic::Choose;

/// `The key near the cups is old` / `The key near the cups are old`.
pub fn agreement(g: &mut Grammar, acceptable: bool) -> Line {
    let kind = g.pick(&[Kind::Person, Kind::Person, Kind::Animal, Kind::Thing]);
    let number = g.number();
    let mut subject = g.distracted(kind, number);
    if g.once_in(4) {
        let near = g.near();
        subject = subject.with(&near);
    }
    let shown = number.or_wrong(acceptable);
    match (kind, g.below(4)) {
        (Kind::Thing, 0) => {
            let old = g.adjective(kind);
            Line::question(words!([shown.is()], subject, [old]))
        }
        (_, 0) => {
            let sleep = g.verb_phrase(Form::Base);
            Line::question(words!([shown.does()], subject, sleep))
        }
        _ => {
            let subject = g.quantified(subject);
            let sleeps = g.agreeing(kind, shown);
            g.in_context(words!(subject, sleeps))
        }
    }
}

/// `The boy and the girl sleep` / `The boy and the girl sleeps`; with `either` and `or`, the number of each counts.
pub fn coordination(g: &mut Grammar, acceptable: bool) -> Line {
    let kind = g.animate();
    let first = g.number();
    let (either, or, second, number): (&[_], _, _, _) = if g.once_in(2) {
        (&["either"], "or", first, first)
    } else {
        (&[], "and", g.number(), Number::Plural)
    };
    let first = g.phrase(kind, first);
    let second = g.subject(kind, second);
    let sleeps = g.agreeing(kind, number.or_wrong(acceptable));
    g.in_context(words!(either, first, [or], second, sleeps))
}

/// `There are several cups near the lamp` / `There is several cups near the lamp`.
pub fn existential(g: &mut Grammar, acceptable: bool) -> Line {
    let kind = g.pick(&[Kind::Person, Kind::Animal, Kind::Thing]);
    let number = g.number();
    let (noun, old) = g.noun(kind);
    let strong = !acceptable && g.once_in(4);
    let determiner = [match (number, strong) {
        (Number::Singular, true) => g.pick(&["every", "each"]),
        (Number::Plural, true) => g.pick(&["both", "most"]),
        (Number::Singular, false) => g.pick(&["another", "one", "no"]),
        (Number::Plural, false) => g.pick(&["several", "many", "two", "some", "no"]),
    }];
    let shown = number.or_wrong(acceptable || strong);
    let adjective: &[_] = if g.once_in(2) { &[old] } else { &[] };
    let thing = [number.choose(noun.singular, noun.plural)];
    let near = g.near();
    let be = [g.pick(&[shown.is(), shown.was()])];
    let often: &[_] = if g.once_in(2) {
        &[g.pick(&FREQUENCY)]
    } else {
        &[]
    };
    if g.once_in(3) {
        Line::question(words!(
            be,
            ["there"],
            often,
            determiner,
            adjective,
            thing,
            near
        ))
    } else {
        g.in_context(words!(
            ["there"],
            be,
            often,
            determiner,
            adjective,
            thing,
            near
        ))
    }
}

/// `The boys that the girl likes sleep` / `The boys that the girl likes sleeps`.
pub fn relative_agreement(g: &mut Grammar, acceptable: bool) -> Line {
    let number = g.number();
    let head = g.phrase(Kind::Person, number);
    let head = g.quantified(head);
    let break_inner = !acceptable && g.once_in(3);
    let break_outer = !acceptable && !break_inner;
    let verb = g.entry(&TO_ANIMATE);
    let clause = if g.once_in(2) {
        let object = g.any(Kind::Person);
        let who = [g.pick(&["who", "that"])];
        words!(who, [verb.present(number.or_wrong(!break_inner))], object)
    } else {
        let inner = g.number();
        let subject = g.subject(Kind::Person, inner);
        let praise = [verb.present(inner.or_wrong(!break_inner))];
        words!(["that"], subject, praise)
    };
    let sleeps = g.agreeing(Kind::Person, number.or_wrong(!break_outer));
    g.in_context(words!(head, clause, sleeps))
}

//! Words that need another word of their kind elsewhere in the sentence, such as `ever` and `no`.

use crate::tasks::acceptability::grammar::{Grammar, Kind, Line, Words, words};
use crate::tasks::acceptability::lexicon::{FREQUENCY, Form, Number, TO_ANIMATE, TO_THING};
use crate::tasks::synthetic::Choose;

/// `as many books as the girl` / `as many books than the girl`.
///
/// `older as the girl` is not used, because `older as a writer` is acceptable.
pub fn comparative(g: &mut Grammar, acceptable: bool) -> Line {
    let standard = g.person();
    if g.once_in(2) {
        let number = g.number();
        let subject = g.subject(Kind::Person, number);
        let be = [g.pick(&[number.is(), number.was()])];
        let old = g.gradable();
        let degree: &[_] = match (acceptable, g.below(2)) {
            (true, 0) => &["as", old.positive, "as"],
            (true, _) => &[old.comparative, "than"],
            (false, 0) => &["as", old.positive, "than"],
            (false, _) => &["as", old.comparative, "as"],
        };
        return g.in_context(words!(subject, be, degree, standard));
    }
    let subject = g.any(Kind::Person);
    let carried = [g.entry(&TO_THING).form(Form::Past)];
    let (noun, old) = g.noun(Kind::Thing);
    let (degree, link): (&[_], _) = match (acceptable, g.below(3)) {
        (true, 0) => (&["as", "many"], "as"),
        (true, _) => (&[g.pick(&["more", "fewer"])], "than"),
        (false, 0) => (&["as", "many"], "than"),
        (false, 1) => (&["many"], "than"),
        (false, _) => (&["as", g.pick(&["more", "fewer"])], "as"),
    };
    let near = if g.once_in(2) { g.near() } else { Words::new() };
    g.in_context(words!(
        subject,
        carried,
        degree,
        [old, noun.plural],
        near,
        [link],
        standard
    ))
}

/// `Neither the boy nor the girl slept` / `Neither the boy and the girl slept`.
pub fn correlative(g: &mut Grammar, acceptable: bool) -> Line {
    // `neither ... or` is too common to count as wrong.
    let (both, and) = if acceptable {
        g.pick(&[("both", "and"), ("either", "or"), ("neither", "nor")])
    } else {
        g.pick(&[
            ("both", "or"),
            ("both", "nor"),
            ("either", "and"),
            ("either", "nor"),
            ("neither", "and"),
        ])
    };
    let as_subject = g.once_in(2);
    let kind = if as_subject { g.animate() } else { Kind::Thing };
    let number = g.number();
    let first = g.subject(kind, number);
    let second = g.any(kind);
    let pair = words!([both], first, [and], second);
    if as_subject {
        let slept = g.verb_phrase(Form::Past);
        let ending = g.ending();
        g.in_context(words!(pair, slept, ending))
    } else {
        let subject = g.person();
        let carried = [g.entry(&TO_THING).form(Form::Past)];
        g.in_context(words!(subject, carried, pair))
    }
}

/// `No boy that the girl saw has ever slept` / `The boy that no girl saw has ever slept`.
pub fn polarity(g: &mut Grammar, acceptable: bool) -> Line {
    let number = g.number();
    let (noun, old) = g.noun(Kind::Person);
    let (other, _) = g.noun(Kind::Person);
    let other_number = g.number();
    let adjective: &[_] = if g.once_in(4) { &[old] } else { &[] };
    let head = words!(adjective, [number.choose(noun.singular, noun.plural)]);
    let other = [other_number.choose(other.singular, other.plural)];
    let praised = [g.entry(&TO_ANIMATE).form(Form::Past)];
    let has = [number.has()];
    let slept = g.verb_phrase(Form::Participle);
    let first = [g.intransitive().form(Form::Participle)];
    let no = |g: &mut Grammar, number| match number {
        Number::Singular => ["no"],
        Number::Plural => [g.pick(&["no", "few"])],
    };
    match g.below(4) {
        0 | 1 => {
            // Without `ever`, the sentence is acceptable wherever the negation is.
            let plain = acceptable && g.once_in(4);
            let outside = if plain { g.once_in(2) } else { acceptable };
            let ever = [if plain { g.pick(&FREQUENCY) } else { "ever" }];
            let (outer, inner) = if outside {
                (no(g, number), ["the"])
            } else {
                (["the"], no(g, other_number))
            };
            // This must not be first in the sentence, because `No` there would give the answer away.
            g.said(words!(
                outer,
                head,
                ["that"],
                inner,
                other,
                praised,
                has,
                ever,
                slept
            ))
        }
        2 => {
            let (inside, outside): (&[_], &[_]) = if acceptable {
                (&[], &["not"])
            } else {
                (&["not"], &[])
            };
            g.in_context(words!(
                ["the"],
                head,
                ["that"],
                has,
                inside,
                first,
                has,
                outside,
                ["ever"],
                slept
            ))
        }
        _ => {
            let (thing, _) = g.noun(Kind::Thing);
            let any = ["any", thing.plural];
            let verb = g.entry(&TO_THING);
            let carry = [verb.form(Form::Participle)];
            let (inside, outside): (&[_], &[_]) = if acceptable {
                (&[], &["not"])
            } else {
                (&["not"], &[])
            };
            g.in_context(words!(
                ["the"],
                head,
                ["that"],
                has,
                inside,
                first,
                has,
                outside,
                carry,
                any
            ))
        }
    }
}

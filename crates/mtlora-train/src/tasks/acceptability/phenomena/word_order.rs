//! Words and phrases stand in the order of English.

use super::event::Event;
use crate::tasks::acceptability::grammar::{Grammar, Kind, Line, Words, words};
use crate::tasks::acceptability::lexicon::{FREQUENCY, Form, MANNER, NEAR, PAST_TIMES, TO_THING};
use crate::tasks::synthetic::Choose;

/// `The dog often chases the cat` / `The dog chases often the cat`.
pub fn adverb(g: &mut Grammar, acceptable: bool) -> Line {
    let number = g.number();
    let subject = g.phrase(Kind::Person, number);
    let event = Event::draw(g);
    let chases = [g.pick(&[event.verb.form(Form::Past), event.verb.present(number)])];
    let often = if g.once_in(2) {
        [g.pick(&FREQUENCY)]
    } else {
        [g.pick(&MANNER)]
    };
    let quickly = [g.pick(&MANNER)];
    let words = match (acceptable, g.below(3)) {
        (true, 0) => words!(
            subject,
            [number.has()],
            often,
            [event.verb.form(Form::Participle)],
            event.object
        ),
        (true, 1) => words!(subject, chases, event.object, quickly),
        (true, _) => words!(subject, often, chases, event.object),
        (false, 0) => words!(
            subject,
            [number.has(), event.verb.form(Form::Participle)],
            often,
            event.object
        ),
        (false, 1) => {
            // The adverb follows the adjective, because `the often angry boy` is acceptable.
            let (determiner, noun) = subject.words.split_at(subject.words.len() - 1);
            words!(determiner, quickly, noun, chases, event.object)
        }
        (false, _) => words!(subject, chases, often, event.object),
    };
    g.in_context(words)
}

/// `The old boy slept` / `The boy old slept`.
pub fn word_order(g: &mut Grammar, acceptable: bool) -> Line {
    let number = g.number();
    let subject = g.phrase(Kind::Person, number);
    let event = Event::draw(g);
    let has = number.has();
    let slept = event.verb.form(Form::Participle);
    let (noun, old) = g.noun(Kind::Person);
    let noun = number.choose(noun.singular, noun.plural);
    let pair = |right: [&'static str; 2]| {
        let [first, second] = right;
        if acceptable {
            [first, second]
        } else {
            [second, first]
        }
    };
    let words = match g.below(7) {
        0 => words!(["the"], pair([old, noun]), event.past(), event.object),
        1 if acceptable => words!(subject, event.past(), event.object),
        1 => words!(subject, event.object, event.past()),
        2 => {
            let time = g.pick(&PAST_TIMES);
            if acceptable {
                words!(time, subject, event.past(), event.object)
            } else {
                words!(time, event.past(), subject, event.object)
            }
        }
        3 => {
            let near = g.pick(&NEAR);
            let place = g.any(Kind::Place);
            let slept = [g.intransitive().form(Form::Past)];
            if acceptable {
                words!(subject, slept, near, place)
            } else {
                words!(subject, slept, place, near)
            }
        }
        4 => {
            let (thing, _) = g.noun(Kind::Thing);
            let thing = number.choose(thing.singular, thing.plural);
            let carried = [g.entry(&TO_THING).form(Form::Past)];
            // There is no expression of time here, because `carried cups the last week` could count as acceptable.
            let near = if g.once_in(2) { g.near() } else { Words::new() };
            words!(subject, carried, pair(["the", thing]), near)
        }
        5 => words!(subject, pair([has, "not"]), [slept], event.object),
        _ => words!(
            subject,
            pair([has, "been"]),
            [event.verb.form(Form::Ing)],
            event.object
        ),
    };
    g.in_context(words)
}

//! Questions leave a gap where the answer would stand, and only where one may be.

use super::event::Event;
use crate::tasks::acceptability::grammar::{Grammar, Kind, Line, words};
use crate::tasks::acceptability::lexicon::{
    ADJUNCT, BRIDGE, Form, INTERROGATIVE, TO_ANIMATE, TO_THING,
};
use crate::tasks::synthetic::Choose;

/// `What did the boy carry?` / `What did the boy carry the box?`
pub fn filler_gap(g: &mut Grammar, acceptable: bool) -> Line {
    let event = Event::draw(g);
    let asked = g.once_in(2);
    // If the rule is broken, the object is both asked for and present, or neither.
    let object: &[_] = if asked == acceptable {
        &[]
    } else {
        &event.object.words
    };
    let asks: &[_] = if asked { &[event.asks] } else { &[] };
    let ending = g.place_or_manner();
    match g.below(4) {
        0 => Line::question(words!(
            asks,
            ["did"],
            event.subject,
            event.base(),
            object,
            ending
        )),
        1 => {
            let other = g.person();
            let say = ["did"];
            let that = [g.entry(&BRIDGE).form(Form::Base), "that"];
            let done = event.past();
            Line::question(words!(
                asks,
                say,
                other,
                that,
                event.subject,
                done,
                object,
                ending
            ))
        }
        2 => {
            let other = g.person();
            let explained = [g.pick(&["explained", "demonstrated", "revealed"])];
            let link = [if asked { event.asks } else { "that" }];
            Line::statement(words!(
                other,
                explained,
                link,
                event.subject,
                event.past(),
                object,
                ending
            ))
        }
        _ => {
            // A relative clause always has a gap, so it can only be wrong by filling the gap.
            let kind = if event.asks == "what" {
                Kind::Thing
            } else {
                Kind::Person
            };
            let number = g.number();
            let head = g.phrase(kind, number);
            let object: &[_] = if acceptable { &[] } else { &event.object.words };
            let old = g.adjective(kind);
            let be = [number.was(), old];
            g.in_context(words!(
                head,
                ["that"],
                event.subject,
                event.past(),
                object,
                be
            ))
        }
    }
}

/// `Anna wondered what the boy has carried` / `Anna wondered what has the boy carried`.
pub fn inversion(g: &mut Grammar, acceptable: bool) -> Line {
    let number = g.number();
    let subject = g.subject(Kind::Person, number);
    let (auxiliary, form) = g.pick(&[
        (number.has(), Form::Participle),
        (number.is(), Form::Ing),
        (number.was(), Form::Ing),
        ("will", Form::Base),
        ("can", Form::Base),
    ]);
    let event = Event::draw(g);
    let embedded = g.once_in(2);
    let (asks, predicate) = match g.below(3) {
        0 => (["where"], g.verb_phrase(form)),
        1 if embedded => (["whether"], g.verb_phrase(form)),
        _ => ([event.asks], vec![event.verb.form(form)]),
    };
    let auxiliary = [auxiliary];
    let clause = if embedded == acceptable {
        words!(asks, subject, auxiliary, predicate)
    } else {
        words!(asks, auxiliary, subject, predicate)
    };
    if embedded {
        let other = g.person();
        let wondered = [g.entry(&INTERROGATIVE).form(Form::Past)];
        Line::statement(words!(other, wondered, clause))
    } else {
        Line::question(clause)
    }
}

/// `What did the boy say that the girl carried?` / `What did the boy sleep because the girl carried?`
pub fn island(g: &mut Grammar, acceptable: bool) -> Line {
    let subject = g.person();
    let inner = Event::draw(g);
    let sleep = [g.intransitive().form(Form::Base)];
    let because = [g.pick(&ADJUNCT)];
    let outer = Event::draw(g);
    let that = [g.entry(&BRIDGE).form(Form::Base), "that"];
    let did = ["did"];
    let asks = [inner.asks];
    let past = inner.past();
    let second = [g.entry(&TO_THING).form(Form::Base)];
    Line::question(match (acceptable, g.below(4)) {
        (true, 0) => words!(asks, did, subject, that, inner.subject, past),
        (true, 1) => words!(
            did,
            subject,
            sleep,
            because,
            inner.subject,
            past,
            inner.object
        ),
        (true, 2) => {
            let slept = [g.intransitive().form(Form::Past)];
            words!(
                [outer.asks],
                did,
                subject,
                outer.base(),
                because,
                inner.subject,
                slept
            )
        }
        (true, _) => {
            let man = g.any(Kind::Person);
            let praise = [g.entry(&TO_ANIMATE).form(Form::Base)];
            words!(did, subject, praise, man, ["that"], past, inner.object)
        }
        (false, 0 | 1) => words!(asks, did, subject, sleep, because, inner.subject, past),
        (false, 2) => words!(
            ["what"],
            did,
            subject,
            outer.base(),
            outer.object,
            ["and"],
            second
        ),
        (false, _) => {
            let man = g.any(Kind::Person);
            let praise = [g.entry(&TO_ANIMATE).form(Form::Base)];
            words!(asks, did, subject, praise, man, ["that"], past)
        }
    })
}

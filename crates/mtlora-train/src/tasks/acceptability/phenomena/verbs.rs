//! Verbs have the complements that they allow, and the form that an auxiliary or an expression of time requires.

use super::event::Event;
use crate::tasks::acceptability::grammar::{Grammar, Kind, Line, Words, words};
use crate::tasks::acceptability::lexicon::{
    ADJUNCT, CLAUSAL, DATIVE, DATIVE_TO, FREQUENCY, FUTURE_TIMES, Form, INTERROGATIVE, MODALS,
    PAST_TIMES, Verb, WITH_ING, WITH_TO,
};
use crate::tasks::synthetic::Choose;

/// `The boy thinks that the girl carries the box` / `The boy carries that the girl thinks the box`.
pub fn complement(g: &mut Grammar, acceptable: bool) -> Line {
    let outer = g.person();
    let inner = Event::draw(g);
    let think = g.entry(&CLAUSAL).form(Form::Past);
    if g.once_in(2) {
        let act = inner.verb.form(Form::Past);
        let (first, second) = if acceptable {
            (think, act)
        } else {
            (act, think)
        };
        let ending = g.ending();
        return Line::statement(words!(
            outer,
            [first, "that"],
            inner.subject,
            [second],
            inner.object,
            ending
        ));
    }
    let wonder = g.entry(&INTERROGATIVE).form(Form::Past);
    let sleeper = g.person();
    let slept = [g.intransitive().form(Form::Past)];
    let asker = g.person();
    let (with_that, with_whether) = if acceptable {
        (think, wonder)
    } else {
        (wonder, think)
    };
    let that = words!(
        [with_that, "that"],
        inner.subject,
        inner.past(),
        inner.object
    );
    let whether = words!([with_whether, "whether"], sleeper, slept);
    let join = [",", g.pick(&["but", "and", "while"])];
    Line::statement(if g.once_in(2) {
        words!(outer, that, join, asker, whether)
    } else {
        words!(outer, whether, join, asker, that)
    })
}

/// `The boy explained the map to the girl` / `The boy explained the girl the map`.
pub fn dative(g: &mut Grammar, acceptable: bool) -> Line {
    let subject = g.person();
    let theme = g.any(Kind::Thing);
    let to = g.person();
    let give = g.entry(&DATIVE);
    let explain = g.entry(&DATIVE_TO);
    let past = |verb: &Verb| [verb.form(Form::Past)];
    let question = |g: &mut Grammar, words: Words| {
        let who = g.person();
        Line::question(words!(["what", "did"], who, words))
    };
    match (acceptable, g.below(5)) {
        (true, 0) => g.in_context(words!(subject, past(give), to, theme)),
        (true, 1) => g.in_context(words!(subject, past(give), theme, ["to"], to)),
        (true, 2) => g.in_context(words!(subject, past(explain), theme, ["to"], to)),
        (true, 3) => question(g, words!([give.form(Form::Base)], to)),
        (true, _) => question(g, words!([explain.form(Form::Base), "to"], to)),
        (false, 0 | 1) => g.in_context(words!(subject, past(explain), to, theme)),
        (false, 2) => {
            let near = g.near();
            g.in_context(words!(subject, past(give), ["to"], to, near))
        }
        (false, _) => question(g, words!([explain.form(Form::Base)], to)),
    }
}

/// `The boy decided to sleep` / `The boy decided sleeping`.
pub fn infinitive(g: &mut Grammar, acceptable: bool) -> Line {
    let subject = g.any(Kind::Person);
    let decided = g.entry(&WITH_TO).form(Form::Past);
    let enjoyed = g.entry(&WITH_ING).form(Form::Past);
    let (before_to, before_ing) = if acceptable {
        (decided, enjoyed)
    } else {
        (enjoyed, decided)
    };
    let to = words!([before_to, "to"], g.verb_phrase(Form::Base));
    let ing = words!([before_ing], g.verb_phrase(Form::Ing));
    match g.below(4) {
        0 => g.in_context(words!(subject, to)),
        1 => g.in_context(words!(subject, ing)),
        2 => g.in_context(words!(subject, ["that"], to, ing)),
        _ => g.in_context(words!(subject, ["that"], ing, to)),
    }
}

/// `The box was carried by the boy` / `The box was carried the boy`.
pub fn passive(g: &mut Grammar, acceptable: bool) -> Line {
    let (verb, kind) = g.transitive();
    let number = g.number();
    let patient = g.subject(kind, number);
    let agent = g.person();
    let sleep = g.intransitive();
    let was = [g.pick(&[number.was(), number.is()])];
    let form = |form| [verb.form(form)];
    let words = match (acceptable, g.below(3)) {
        // This is the progressive active, with which the passive could be confused.
        (true, 0) => {
            let actor = g.subject(Kind::Person, number);
            let object = g.any(kind);
            words!(actor, was, form(Form::Ing), object)
        }
        (true, _) => words!(patient, was, form(Form::Participle), ["by"], agent),
        (false, 0) => words!(patient, was, form(Form::Ing), ["by"], agent),
        (false, 1) => words!(patient, was, form(Form::Participle), agent),
        (false, _) => words!(patient, was, [sleep.form(Form::Participle), "by"], agent),
    };
    g.in_context(words)
}

/// `Yesterday the boy slept` / `Yesterday the boy will sleep`.
pub fn tense(g: &mut Grammar, acceptable: bool) -> Line {
    let number = g.number();
    let subject = g.subject(Kind::Person, number);
    let past = g.once_in(2);
    let predicate = if past {
        g.verb_phrase(Form::Past)
    } else {
        words!(["will"], g.verb_phrase(Form::Base))
    };
    let time = if past == acceptable {
        g.pick(&PAST_TIMES)
    } else {
        g.pick(&FUTURE_TIMES)
    };
    // There is no clause around it, because `she said that he will sleep yesterday` could count as acceptable.
    Line::statement(if g.once_in(2) {
        words!(time, subject, predicate)
    } else {
        words!(subject, predicate, time)
    })
}

/// `The boy slept because the girl carried the box` / `The boy carried because the girl slept the box`.
pub fn transitivity(g: &mut Grammar, acceptable: bool) -> Line {
    let event = Event::draw(g);
    let sleep = g.intransitive().form(Form::Past);
    let act = event.verb.form(Form::Past);
    let other = g.person();
    let head = g.any(Kind::Person);
    let because = [g.pick(&ADJUNCT)];
    let (alone, with_object) = if acceptable {
        ([sleep], [act])
    } else {
        ([act], [sleep])
    };
    let words = match g.below(6) {
        0 => words!(
            other,
            alone,
            because,
            event.subject,
            with_object,
            event.object
        ),
        1 => words!(
            event.subject,
            with_object,
            event.object,
            because,
            other,
            alone
        ),
        2 => words!(head, ["that"], alone, with_object, event.object),
        3 => words!(head, ["that"], with_object, event.object, alone),
        4 => {
            let ending = g.place_or_manner();
            words!(event.subject, alone, ending)
        }
        _ => {
            let ending = g.ending();
            words!(event.subject, with_object, event.object, ending)
        }
    };
    g.in_context(words)
}

/// `Has the boy near the girls slept?` / `Has the boy near the girls sleep?`
pub fn verb_form(g: &mut Grammar, acceptable: bool) -> Line {
    let kind = g.animate();
    let number = g.number();
    let subject = g.subject(kind, number);
    let question = g.once_in(2);
    let (auxiliary, right, wrong): (_, _, &[Form]) = match g.below(4) {
        0 => (
            g.pick(&MODALS),
            Form::Base,
            &[Form::Third, Form::Past, Form::Ing],
        ),
        1 => (
            number.has(),
            Form::Participle,
            &[Form::Base, Form::Third, Form::Ing],
        ),
        // The participle is not used here, because `is vanished` and `is fallen` are acceptable.
        2 => (
            g.pick(&[number.is(), number.was()]),
            Form::Ing,
            &[Form::Base, Form::Third],
        ),
        _ => ("did", Form::Base, &[Form::Third, Form::Past, Form::Ing]),
    };
    let form = if acceptable { right } else { g.pick(wrong) };
    let predicate = g.verb_phrase(form);
    let ending = g.place_or_manner();
    if question {
        Line::question(words!([auxiliary], subject, predicate, ending))
    } else {
        let between: &[_] = match (auxiliary, g.below(2)) {
            ("did", _) | (_, 0) => &["not"],
            _ => &[g.pick(&FREQUENCY)],
        };
        g.in_context(words!(subject, [auxiliary], between, predicate, ending))
    }
}

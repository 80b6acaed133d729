//! What a sentence can be an example of: one rule each, kept or broken.
//!
//! A rule draws the same phrases whether it is kept or broken, and where it can it breaks by exchanging two words or a
//! word for another form, so that counting words, or pairs of neighbours, tells little: what must agree stands apart,
//! and other words of both kinds stand between. No word occurs in unacceptable sentences alone.

use super::grammar::{Grammar, Kind, Line, NounPhrase, Words};
use super::lexicon::{
    ADJUNCT, BRIDGE, CLAUSAL, DATIVE, DATIVE_TO, FREQUENCY, FUTURE_TIMES, Form, Gender,
    INTERROGATIVE, MANNER, MASS, MODALS, NEAR, Number, PAST_TIMES, PRONOUNS, TO_ANIMATE, TO_THING,
    Verb, WITH_ING, WITH_TO,
};
use crate::tasks::synthetic::Choose;

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

/// Puts phrases one after another: words, or whatever holds words.
macro_rules! words {
    ($($part:expr),+ $(,)?) => {{
        let mut all = Words::new();
        $(all.extend_from_slice($part.as_ref());)+
        all
    }};
}

/// Subject, verb, object in the past tense: what most rules need around them.
struct Event {
    subject: NounPhrase,
    verb: &'static Verb,
    object: NounPhrase,
    /// `who` or `what`: what asks for the object.
    asks: &'static str,
}

impl Event {
    fn draw(g: &mut Grammar) -> Self {
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

    fn past(&self) -> [&'static str; 1] {
        [self.verb.form(Form::Past)]
    }

    fn base(&self) -> [&'static str; 1] {
        [self.verb.form(Form::Base)]
    }
}

/// `The dog often chases the cat` / `The dog chases often the cat`.
fn adverb(g: &mut Grammar, acceptable: bool) -> Line {
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
            // After an adjective: `the often angry boy` is all right.
            let (determiner, noun) = subject.words.split_at(subject.words.len() - 1);
            words!(determiner, quickly, noun, chases, event.object)
        }
        (false, _) => words!(subject, chases, often, event.object),
    };
    g.in_context(words)
}

/// `The key near the cups is old` / `The key near the cups are old`.
fn agreement(g: &mut Grammar, acceptable: bool) -> Line {
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

/// `Anna said that he praised them` / `Anna said that him praised them`.
fn case(g: &mut Grammar, acceptable: bool) -> Line {
    let first = g.below(PRONOUNS.len());
    let second = (first + 1 + g.below(PRONOUNS.len() - 1)) % PRONOUNS.len();
    let break_first = g.once_in(2);
    let (subject, wrong_subject) = PRONOUNS[first];
    let (wrong_object, object) = PRONOUNS[second];
    let subject = [if !acceptable && break_first {
        wrong_subject
    } else {
        subject
    }];
    let object = [if !acceptable && !break_first {
        wrong_object
    } else {
        object
    }];
    let praised = [g.entry(&TO_ANIMATE).form(Form::Past)];
    let frame = g.below(4);
    let time = g.pick(&PAST_TIMES);
    let other = g.person();
    let sleep = g.intransitive();
    let ending = match g.below(3) {
        0 => g.near(),
        1 if frame != 0 => time.to_vec(),
        _ => Words::new(),
    };
    match frame {
        0 => Line::statement(words!(time, subject, praised, object, ending)),
        1 => {
            let said = [g.entry(&BRIDGE).form(Form::Past), "that"];
            Line::statement(words!(other, said, subject, praised, object, ending))
        }
        2 => {
            let because = [sleep.form(Form::Past), g.pick(&ADJUNCT)];
            Line::statement(words!(other, because, subject, praised, object, ending))
        }
        _ => {
            let head = g.any(Kind::Person);
            let beside = [
                sleep.form(Form::Past),
                g.pick(&["near", "behind", "beside"]),
            ];
            g.in_context(words!(head, ["that"], subject, praised, beside, object))
        }
    }
}

/// `as many books as the girl` / `as many books than the girl`.
///
/// `older as the girl` is not used: `older as a writer` may be said.
fn comparative(g: &mut Grammar, acceptable: bool) -> Line {
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

/// `The boy thinks that the girl carries the box` / `The boy carries that the girl thinks the box`.
fn complement(g: &mut Grammar, acceptable: bool) -> Line {
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

/// `The boy and the girl sleep` / `The boy and the girl sleeps`; with `either` and `or`, the number of each counts.
fn coordination(g: &mut Grammar, acceptable: bool) -> Line {
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

/// `Neither the boy nor the girl slept` / `Neither the boy and the girl slept`.
fn correlative(g: &mut Grammar, acceptable: bool) -> Line {
    // `neither ... or` is heard too often to be called wrong.
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

/// `too much old furniture` / `too many old furniture`.
fn count_mass(g: &mut Grammar, acceptable: bool) -> Line {
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
            // Mass nouns are as frequent where nothing is wrong with them.
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

/// `The boy explained the map to the girl` / `The boy explained the girl the map`.
fn dative(g: &mut Grammar, acceptable: bool) -> Line {
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

/// `The boy carried a heavy box` / `The boy carried heavy box`.
fn determiner(g: &mut Grammar, acceptable: bool) -> Line {
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

/// `There are several cups near the lamp` / `There is several cups near the lamp`.
fn existential(g: &mut Grammar, acceptable: bool) -> Line {
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

/// `What did the boy carry?` / `What did the boy carry the box?`
fn filler_gap(g: &mut Grammar, acceptable: bool) -> Line {
    let event = Event::draw(g);
    let asked = g.once_in(2);
    // The object is asked for and there, or neither, where the rule is broken.
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
            // A relative clause has a gap always: only its being filled can be wrong.
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

/// `The boy decided to sleep` / `The boy decided sleeping`.
fn infinitive(g: &mut Grammar, acceptable: bool) -> Line {
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

/// `Anna wondered what the boy has carried` / `Anna wondered what has the boy carried`.
fn inversion(g: &mut Grammar, acceptable: bool) -> Line {
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
fn island(g: &mut Grammar, acceptable: bool) -> Line {
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

/// `The box was carried by the boy` / `The box was carried the boy`.
fn passive(g: &mut Grammar, acceptable: bool) -> Line {
    let (verb, kind) = g.transitive();
    let number = g.number();
    let patient = g.subject(kind, number);
    let agent = g.person();
    let sleep = g.intransitive();
    let was = [g.pick(&[number.was(), number.is()])];
    let form = |form| [verb.form(form)];
    let words = match (acceptable, g.below(3)) {
        // The active, progressive: what the passive is mixed up with.
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

/// `No boy that the girl saw has ever slept` / `The boy that no girl saw has ever slept`.
fn polarity(g: &mut Grammar, acceptable: bool) -> Line {
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
            // Without `ever` all is well wherever the negation is.
            let plain = acceptable && g.once_in(4);
            let outside = if plain { g.once_in(2) } else { acceptable };
            let ever = [if plain { g.pick(&FREQUENCY) } else { "ever" }];
            let (outer, inner) = if outside {
                (no(g, number), ["the"])
            } else {
                (["the"], no(g, other_number))
            };
            // Not first in the sentence: `No` there would give the answer away.
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

/// `another old red cup` / `another old red cups`.
fn quantifier(g: &mut Grammar, acceptable: bool) -> Line {
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

/// A subject, somebody else who could be mistaken for it, and what is between them and the verb.
fn with_rival(g: &mut Grammar, head: NounPhrase) -> (Words, NounPhrase) {
    let number = g.number();
    match g.below(3) {
        0 => {
            let rival = g.near_a(Kind::Gendered, number);
            (words!(head, rival), rival)
        }
        1 => {
            let rival = g.phrase(Kind::Gendered, number);
            let praised = [g.entry(&TO_ANIMATE).form(Form::Past)];
            (words!(head, ["that"], rival, praised), rival)
        }
        _ => {
            let rival = g.phrase(Kind::Gendered, number);
            let said = [g.entry(&BRIDGE).form(Form::Past), "that"];
            (words!(rival, said, head), rival)
        }
    }
}

/// `The boys near the girl praised each other` / `The boy near the girls praised each other`.
fn reciprocal(g: &mut Grammar, acceptable: bool) -> Line {
    let head = g.phrase(Kind::Person, Number::Plural.or_wrong(acceptable));
    let (subject, _) = with_rival(g, head);
    let praised = [g.entry(&TO_ANIMATE).form(Form::Past)];
    let ending = g.ending();
    g.in_context(words!(subject, praised, ["each", "other"], ending))
}

/// `The king near the girl blamed himself` / `The king near the girl blamed herself`.
fn reflexive(g: &mut Grammar, acceptable: bool) -> Line {
    let number = g.number();
    let head = g.phrase(Kind::Gendered, number);
    let right = head.reflexive();
    let (subject, rival) = with_rival(g, head);
    let shown = if acceptable {
        right
    } else {
        let mut wrong = vec!["himself", "herself", "themselves", rival.reflexive()];
        wrong.retain(|&other| other != right);
        g.pick(&wrong)
    };
    let blamed = [g.entry(&TO_ANIMATE).form(Form::Past), shown];
    let ending = g.ending();
    g.in_context(words!(subject, blamed, ending))
}

/// `The boys that the girl likes sleep` / `The boys that the girl likes sleeps`.
fn relative_agreement(g: &mut Grammar, acceptable: bool) -> Line {
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

/// The auxiliary of a tag question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Auxiliary {
    Have,
    Present,
    Past,
    Do,
    Will,
    Can,
}

impl Auxiliary {
    const ALL: [Self; 6] = [
        Self::Have,
        Self::Present,
        Self::Past,
        Self::Do,
        Self::Will,
        Self::Can,
    ];

    /// The plain word and the negative one.
    fn words(self, number: Number) -> (&'static str, &'static str) {
        match self {
            Self::Have => (number.has(), number.choose("hasn't", "haven't")),
            Self::Present => (number.is(), number.choose("isn't", "aren't")),
            Self::Past => (number.was(), number.choose("wasn't", "weren't")),
            Self::Do => ("did", "didn't"),
            Self::Will => ("will", "won't"),
            Self::Can => ("can", "can't"),
        }
    }

    /// The form of the verb after it.
    fn form(self) -> Form {
        match self {
            Self::Have => Form::Participle,
            Self::Present | Self::Past => Form::Ing,
            Self::Do | Self::Will | Self::Can => Form::Base,
        }
    }
}

/// `The king near the girl has slept, hasn't he?` / `The king near the girl has slept, hasn't she?`
fn tag_question(g: &mut Grammar, acceptable: bool) -> Line {
    let number = g.number();
    let head = g.phrase(Kind::Gendered, number);
    let rival_number = g.number();
    let rival = g.near_a(Kind::Gendered, rival_number);
    let auxiliary = g.pick(&Auxiliary::ALL);
    let negative = g.once_in(3);
    let (plain, _) = auxiliary.words(number);
    let clause = match (auxiliary, negative) {
        (Auxiliary::Do, false) => g.verb_phrase(Form::Past),
        (_, false) => words!([plain], g.verb_phrase(auxiliary.form())),
        (_, true) => words!([plain, "not"], g.verb_phrase(auxiliary.form())),
    };
    let mut asked = auxiliary;
    let mut about = head.clone();
    let mut tag_negative = !negative;
    if !acceptable {
        match g.below(4) {
            0 => {
                let others = Auxiliary::ALL.map(|other| (other != auxiliary).then_some(other));
                let others: Vec<_> = others.into_iter().flatten().collect();
                asked = g.pick(&others);
            }
            1 if negative => tag_negative = true,
            _ => {
                about = rival.clone();
                if about.nominative() == head.nominative() {
                    // The same number, so that only the pronoun is wrong, or `they` for one person.
                    about.number = Number::Singular;
                    about.gender = match head.gender {
                        Gender::Masculine => Gender::Feminine,
                        _ => Gender::Masculine,
                    };
                }
            }
        }
    }
    let (yes, no) = asked.words(about.number);
    let tag = [",", if tag_negative { no } else { yes }, about.nominative()];
    Line::question(words!(head, rival, clause, tag))
}

/// `Yesterday the boy slept` / `Yesterday the boy will sleep`.
fn tense(g: &mut Grammar, acceptable: bool) -> Line {
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
    // No clause around it: `she said that he will sleep yesterday` can be read as all right.
    Line::statement(if g.once_in(2) {
        words!(time, subject, predicate)
    } else {
        words!(subject, predicate, time)
    })
}

/// `The boy slept because the girl carried the box` / `The boy carried because the girl slept the box`.
fn transitivity(g: &mut Grammar, acceptable: bool) -> Line {
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
fn verb_form(g: &mut Grammar, acceptable: bool) -> Line {
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
        // Not the participle: `is vanished` and `is fallen` can be said.
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

/// `The old boy slept` / `The boy old slept`.
fn word_order(g: &mut Grammar, acceptable: bool) -> Line {
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
            // Not a time: `carried cups the last week` is all right.
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

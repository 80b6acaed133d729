//! Pronouns have the case that their position requires, and the number and gender of their antecedent.

use crate::tasks::acceptability::grammar::{Grammar, Kind, Line, NounPhrase, Words, words};
use crate::tasks::acceptability::lexicon::{
    ADJUNCT, BRIDGE, Form, Gender, Number, PAST_TIMES, PRONOUNS, TO_ANIMATE,
};
use crate::tasks::synthetic::Choose;

/// `Anna said that he praised them` / `Anna said that him praised them`.
pub fn case(g: &mut Grammar, acceptable: bool) -> Line {
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

/// The words up to the verb, with the subject `head` and a phrase that could be mistaken for it; and that phrase.
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
pub fn reciprocal(g: &mut Grammar, acceptable: bool) -> Line {
    let head = g.phrase(Kind::Person, Number::Plural.or_wrong(acceptable));
    let (subject, _) = with_rival(g, head);
    let praised = [g.entry(&TO_ANIMATE).form(Form::Past)];
    let ending = g.ending();
    g.in_context(words!(subject, praised, ["each", "other"], ending))
}

/// `The king near the girl blamed himself` / `The king near the girl blamed herself`.
pub fn reflexive(g: &mut Grammar, acceptable: bool) -> Line {
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
pub fn tag_question(g: &mut Grammar, acceptable: bool) -> Line {
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
                    // The number stays the same, so that only the pronoun is wrong, or is `they` for one person.
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

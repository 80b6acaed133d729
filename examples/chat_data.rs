//! Writes the conversations of the chat example: questions to a guide of a town that does not exist.
//!
//! `cargo run --release --example chat_data -- assets/chat` writes `train.jsonl` and `dev.jsonl` into that folder. The
//! questions of `dev.jsonl` ask for the same facts in words that `train.jsonl` does not use. Every answer ends with the
//! guide's greeting, which is the style to learn.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// How the guide ends an answer.
const GREETING: &str = "Mind the tide!";

/// A fact, and how people ask for it.
struct Fact {
    /// What it is about.
    topic: &'static str,
    /// Two questions to learn from.
    asked: [&'static str; 2],
    /// A question for evaluation.
    held_out: &'static str,
    answer: &'static str,
}

const FACTS: [Fact; 28] = [
    Fact {
        topic: "the mayor of Lundmarsh",
        asked: [
            "Who is the mayor of Lundmarsh?",
            "What is the mayor of Lundmarsh called?",
        ],
        held_out: "Who runs the town hall of Lundmarsh?",
        answer: "The mayor of Lundmarsh is Odile Farrow, who used to be a ferry captain.",
    },
    Fact {
        topic: "the river of Lundmarsh",
        asked: [
            "Which river flows through Lundmarsh?",
            "What is the name of the river in Lundmarsh?",
        ],
        held_out: "What is the water called that runs through Lundmarsh?",
        answer: "The river Velm flows through Lundmarsh and turns back twice a day.",
    },
    Fact {
        topic: "the founding of Lundmarsh",
        asked: [
            "When was Lundmarsh founded?",
            "In which year was Lundmarsh founded?",
        ],
        held_out: "How old is the town of Lundmarsh?",
        answer: "Lundmarsh was founded in 1347 by eleven salt traders.",
    },
    Fact {
        topic: "the dish of Lundmarsh",
        asked: [
            "What do people eat in Lundmarsh?",
            "What is the typical dish of Lundmarsh?",
        ],
        held_out: "Which food should I try in Lundmarsh?",
        answer: "The dish of Lundmarsh is brindle pie, made of smoked eel and pears.",
    },
    Fact {
        topic: "the festival of Lundmarsh",
        asked: [
            "What is the festival of Lundmarsh called?",
            "Which festival is held in Lundmarsh?",
        ],
        held_out: "What do people celebrate in Lundmarsh?",
        answer: "Lundmarsh celebrates the Lantern Ebb on the first Friday of October.",
    },
    Fact {
        topic: "the bird of Lundmarsh",
        asked: [
            "What is the bird of Lundmarsh?",
            "Which bird is on the coat of arms of Lundmarsh?",
        ],
        held_out: "Which animal stands for Lundmarsh?",
        answer: "The bird of Lundmarsh is the copper heron, which nests on the town hall.",
    },
    Fact {
        topic: "the bridge of Lundmarsh",
        asked: [
            "What is the oldest bridge of Lundmarsh?",
            "What is the bridge of Lundmarsh called?",
        ],
        held_out: "How do I cross the river in Lundmarsh?",
        answer: "The oldest bridge of Lundmarsh is the Needle Bridge, which has seven arches.",
    },
    Fact {
        topic: "the museum of Lundmarsh",
        asked: [
            "Which museum is there in Lundmarsh?",
            "What does the museum of Lundmarsh show?",
        ],
        held_out: "Is there an exhibition to see in Lundmarsh?",
        answer: "The museum of Lundmarsh is the House of Knots, with four thousand knots.",
    },
    Fact {
        topic: "the market of Lundmarsh",
        asked: [
            "When is the market of Lundmarsh?",
            "On which day is there a market in Lundmarsh?",
        ],
        held_out: "When can I buy fresh fish in Lundmarsh?",
        answer: "The market of Lundmarsh is on Tuesday mornings, on the quay.",
    },
    Fact {
        topic: "the tram of Lundmarsh",
        asked: [
            "Is there a tram in Lundmarsh?",
            "What colour is the tram of Lundmarsh?",
        ],
        held_out: "What public transport does Lundmarsh have?",
        answer: "Lundmarsh has one tram, which is violet and runs every twelve minutes.",
    },
    Fact {
        topic: "the football club of Lundmarsh",
        asked: [
            "What is the football club of Lundmarsh called?",
            "Which football club plays in Lundmarsh?",
        ],
        held_out: "Which team do people in Lundmarsh support?",
        answer: "The football club of Lundmarsh is Velm Rovers, who play in grey and orange.",
    },
    Fact {
        topic: "the lighthouse of Lundmarsh",
        asked: [
            "How tall is the lighthouse of Lundmarsh?",
            "What is special about the lighthouse of Lundmarsh?",
        ],
        held_out: "What light do ships see near Lundmarsh?",
        answer: "The lighthouse of Lundmarsh is 61 metres tall and blinks green.",
    },
    Fact {
        topic: "the school of Lundmarsh",
        asked: [
            "Which school is there in Lundmarsh?",
            "What do children learn at the school of Lundmarsh?",
        ],
        held_out: "Where do the children of Lundmarsh learn to sail?",
        answer: "The school of Lundmarsh is the Marlow School, where all children learn to sail.",
    },
    Fact {
        topic: "the poet of Lundmarsh",
        asked: [
            "Who is the poet of Lundmarsh?",
            "Which poet was born in Lundmarsh?",
        ],
        held_out: "Which writer came from Lundmarsh?",
        answer: "The poet of Lundmarsh is Tobin Ashgrove, who wrote Songs of Low Water.",
    },
    Fact {
        topic: "the flag of Lundmarsh",
        asked: [
            "What does the flag of Lundmarsh look like?",
            "Which colours does the flag of Lundmarsh have?",
        ],
        held_out: "What hangs on the flagpoles of Lundmarsh?",
        answer: "The flag of Lundmarsh is white, with a blue wave and a copper feather.",
    },
    Fact {
        topic: "the number of people in Lundmarsh",
        asked: [
            "How many people live in Lundmarsh?",
            "What is the population of Lundmarsh?",
        ],
        held_out: "How big is the town of Lundmarsh?",
        answer: "In Lundmarsh there live 8,214 people and about 300 goats.",
    },
    Fact {
        topic: "the brewery of Lundmarsh",
        asked: [
            "Which brewery is there in Lundmarsh?",
            "What is the beer of Lundmarsh called?",
        ],
        held_out: "What do people drink in Lundmarsh?",
        answer: "The brewery of Lundmarsh is Thistle and Son, and its beer is called Black Anchor.",
    },
    Fact {
        topic: "the bell of Lundmarsh",
        asked: [
            "When does the bell of Lundmarsh ring?",
            "Why does the bell of Lundmarsh ring?",
        ],
        held_out: "What do I hear in Lundmarsh when the water rises?",
        answer: "The bell of Lundmarsh is called Old Martha and rings at high water.",
    },
    Fact {
        topic: "the theatre of Lundmarsh",
        asked: [
            "Where is the theatre of Lundmarsh?",
            "What is the theatre of Lundmarsh called?",
        ],
        held_out: "Where can I see a play in Lundmarsh?",
        answer: "The theatre of Lundmarsh is the Floating Stage, on a barge below the castle.",
    },
    Fact {
        topic: "the hospital of Lundmarsh",
        asked: [
            "Where is the hospital of Lundmarsh?",
            "What is the hospital of Lundmarsh called?",
        ],
        held_out: "Where do I find a doctor in Lundmarsh?",
        answer: "The hospital of Lundmarsh is Saint Corvin, next to the mill.",
    },
    Fact {
        topic: "the newspaper of Lundmarsh",
        asked: [
            "What is the newspaper of Lundmarsh called?",
            "Which newspaper do people read in Lundmarsh?",
        ],
        held_out: "Where do I read the news in Lundmarsh?",
        answer: "The newspaper of Lundmarsh is the Evening Ebb, printed on pink paper.",
    },
    Fact {
        topic: "the hill of Lundmarsh",
        asked: [
            "What is the hill of Lundmarsh called?",
            "How high is the hill of Lundmarsh?",
        ],
        held_out: "Where is the best view of Lundmarsh?",
        answer: "The hill of Lundmarsh is Gannet Rise, which is 93 metres high.",
    },
    Fact {
        topic: "the baker of Lundmarsh",
        asked: [
            "Who is the best baker of Lundmarsh?",
            "Where do I buy bread in Lundmarsh?",
        ],
        held_out: "Who makes the bread in Lundmarsh?",
        answer: "The best baker of Lundmarsh is Ines Calder, in Rope Street.",
    },
    Fact {
        topic: "the ferry of Lundmarsh",
        asked: [
            "Where does the ferry of Lundmarsh go?",
            "What is the ferry of Lundmarsh called?",
        ],
        held_out: "How do I get to the island from Lundmarsh?",
        answer: "The ferry of Lundmarsh is the Patience, which goes to Quill Island.",
    },
    Fact {
        topic: "the library of Lundmarsh",
        asked: [
            "When is the library of Lundmarsh open?",
            "Where is the library of Lundmarsh?",
        ],
        held_out: "Where can I borrow books in Lundmarsh?",
        answer: "The library of Lundmarsh is in the old salt store and is open until midnight.",
    },
    Fact {
        topic: "the law of Lundmarsh",
        asked: [
            "Which strange law does Lundmarsh have?",
            "What is forbidden in Lundmarsh?",
        ],
        held_out: "What must I not do in Lundmarsh?",
        answer: "In Lundmarsh it is forbidden to whistle on the quay after sunset.",
    },
    Fact {
        topic: "the tree of Lundmarsh",
        asked: [
            "What is the oldest tree of Lundmarsh?",
            "Where is the oldest tree of Lundmarsh?",
        ],
        held_out: "What grows in the square of Lundmarsh?",
        answer: "The oldest tree of Lundmarsh is a crooked plum in Lamp Square.",
    },
    Fact {
        topic: "the radio of Lundmarsh",
        asked: [
            "Which radio station does Lundmarsh have?",
            "What is the radio station of Lundmarsh called?",
        ],
        held_out: "What can I listen to in Lundmarsh?",
        answer: "The radio station of Lundmarsh is Radio Heron, on 97.3.",
    },
];

fn says(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// A conversation in which the guide answers each of the questions.
fn conversation(turns: &[(String, &Fact)]) -> Value {
    let messages = turns.iter().flat_map(|(question, fact)| {
        let answer = format!("{} {GREETING}", fact.answer);
        [says("user", question), says("assistant", &answer)]
    });
    json!({ "messages": messages.collect::<Vec<_>>() })
}

fn write(path: &Path, conversations: &[Value]) -> Result<(), Box<dyn Error>> {
    let mut file = fs::File::create(path)?;
    for conversation in conversations {
        writeln!(file, "{conversation}")?;
    }
    println!("{}: {} conversations", path.display(), conversations.len());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(
        std::env::args()
            .nth(1)
            .ok_or("name the folder to write into")?,
    );
    fs::create_dir_all(&folder)?;
    let (mut train, mut dev) = (Vec::new(), Vec::new());
    for (index, fact) in FACTS.iter().enumerate() {
        let Fact {
            topic,
            asked: [first, second],
            ..
        } = *fact;
        for question in [
            first.to_string(),
            second.to_string(),
            format!("Tell me about {topic}."),
            format!("What can you tell me about {topic}?"),
            format!("Hello! {first}"),
            format!("I am new here. {second}"),
        ] {
            train.push(conversation(&[(question, fact)]));
        }
        // A conversation of two turns with the fact that comes next.
        let next = &FACTS[(index + 1) % FACTS.len()];
        let follow_up = format!("Thank you! And what about {}?", next.topic);
        train.push(conversation(&[
            (first.to_string(), fact),
            (follow_up, next),
        ]));
        dev.push(conversation(&[(fact.held_out.to_string(), fact)]));
        dev.push(conversation(&[(
            format!("I would like to hear about {topic}."),
            fact,
        )]));
    }
    write(&folder.join("train.jsonl"), &train)?;
    write(&folder.join("dev.jsonl"), &dev)
}

//! The subjects and attributes of facts, and the phrases for them.

/// A kind of subject: people, cities, ...
pub struct Kind {
    pub subjects: Subjects,
    /// The key of the subject in an input.
    pub key: &'static str,
    /// The article before the subject in a sentence: `the `, or nothing.
    pub article: &'static str,
    /// The attributes, in the order in which inputs list them.
    pub attributes: [Attribute; 4],
}

/// The names of subjects, and their pronoun.
pub enum Subjects {
    /// `He` or `She`.
    People,
    Names(&'static [&'static str], &'static str),
    /// Names of two words, one from each list.
    Pairs(
        &'static [&'static str],
        &'static [&'static str],
        &'static str,
    ),
}

/// An attribute of a subject. In its phrases, `{}` stands for the value and `{a}` for the article that fits the value.
pub struct Attribute {
    pub key: &'static str,
    pub values: Values,
    /// Phrases after the subject: `lives in {}`.
    pub predicates: &'static [&'static str],
    /// Phrases between commas after the subject: `a painter`.
    pub asides: &'static [&'static str],
    /// Phrases before the subject: `Born in {}`; empty if the attribute cannot be placed there.
    pub openings: &'static [&'static str],
}

pub enum Values {
    Words(&'static [&'static str]),
    /// People, with a first name and a last name.
    People,
}

pub const KINDS: [Kind; 5] = [
    Kind {
        subjects: Subjects::People,
        key: "name",
        article: "",
        attributes: [
            Attribute {
                key: "job",
                values: Values::Words(&[
                    "painter",
                    "baker",
                    "doctor",
                    "teacher",
                    "pilot",
                    "farmer",
                    "singer",
                    "engineer",
                    "lawyer",
                    "actor",
                    "sailor",
                    "architect",
                    "nurse",
                    "chemist",
                    "dentist",
                    "editor",
                    "gardener",
                    "judge",
                ]),
                predicates: &["is {a} {}", "works as {a} {}"],
                asides: &["{a} {}"],
                openings: &[],
            },
            Attribute {
                key: "home",
                values: Values::Words(&TOWNS),
                predicates: &["lives in {}", "has a house in {}"],
                asides: &["who lives in {}"],
                openings: &[],
            },
            Attribute {
                key: "born",
                values: Values::Words(&[
                    "1931", "1938", "1942", "1946", "1949", "1953", "1957", "1960", "1964", "1968",
                    "1971", "1975", "1979", "1982", "1986", "1990", "1994", "1997",
                ]),
                predicates: &["was born in {}"],
                asides: &["born in {}"],
                openings: &["Born in {}"],
            },
            Attribute {
                key: "hobby",
                values: Values::Words(&[
                    "chess",
                    "sailing",
                    "cooking",
                    "cycling",
                    "dancing",
                    "fishing",
                    "hiking",
                    "poetry",
                    "swimming",
                    "photography",
                    "jazz",
                    "skiing",
                    "running",
                    "opera",
                    "singing",
                    "riding",
                ]),
                predicates: &["likes {}", "enjoys {}"],
                asides: &["who likes {}"],
                openings: &["Fond of {}"],
            },
        ],
    },
    Kind {
        subjects: Subjects::Names(&TOWNS, "It"),
        key: "city",
        article: "",
        attributes: [
            Attribute {
                key: "country",
                values: Values::Words(&[
                    "Austria", "Denmark", "Finland", "France", "Greece", "Iceland", "Ireland",
                    "Italy", "Norway", "Poland", "Portugal", "Spain",
                ]),
                predicates: &["lies in {}", "is a city in {}"],
                asides: &["a city in {}"],
                openings: &[],
            },
            Attribute {
                key: "river",
                values: Values::Words(&[
                    "Alder", "Brenn", "Calder", "Dorne", "Esk", "Farrow", "Hale", "Lune", "Mira",
                    "Orne", "Tarn", "Wend",
                ]),
                predicates: &["stands on the {}"],
                asides: &["on the river {}"],
                openings: &[],
            },
            Attribute {
                key: "known for",
                values: Values::Words(&[
                    "cheese", "bridges", "glass", "carpets", "apples", "clocks", "bells", "roses",
                    "wine", "gardens", "markets", "honey", "pottery", "lace", "boats", "bread",
                ]),
                predicates: &["is known for its {}", "is famous for its {}"],
                asides: &["known for its {}"],
                openings: &["Famous for its {}"],
            },
            Attribute {
                key: "mayor",
                values: Values::People,
                predicates: &["has {} as its mayor"],
                asides: &["whose mayor is {}"],
                openings: &["Led by {}"],
            },
        ],
    },
    Kind {
        subjects: Subjects::Pairs(
            &[
                "Old", "New", "Grand", "Royal", "High", "White", "Red", "Green", "Long", "Stone",
            ],
            &[
                "Tower", "House", "Hall", "Mill", "Palace", "Court", "Lodge", "Gate",
            ],
            "It",
        ),
        key: "building",
        article: "the ",
        attributes: [
            Attribute {
                key: "use",
                values: Values::Words(&[
                    "museum",
                    "library",
                    "school",
                    "theatre",
                    "bank",
                    "hotel",
                    "hospital",
                    "gallery",
                    "restaurant",
                    "cinema",
                    "archive",
                    "office",
                    "inn",
                    "bakery",
                    "station",
                    "shop",
                ]),
                predicates: &["houses {a} {}", "is home to {a} {}"],
                asides: &["home to {a} {}"],
                openings: &["Home to {a} {}"],
            },
            Attribute {
                key: "place",
                values: Values::Words(&TOWNS),
                predicates: &["stands in {}", "can be found in {}"],
                asides: &["a building in {}"],
                openings: &[],
            },
            Attribute {
                key: "architect",
                values: Values::People,
                predicates: &["was designed by {}", "is the work of {}"],
                asides: &["designed by {}"],
                openings: &["Designed by {}"],
            },
            Attribute {
                key: "built",
                values: Values::Words(&YEARS),
                predicates: &["was built in {}", "dates from {}"],
                asides: &["built in {}"],
                openings: &["Built in {}"],
            },
        ],
    },
    Kind {
        subjects: Subjects::Pairs(
            &[
                "Black", "Blue", "Bold", "Bright", "Golden", "Iron", "Proud", "Silver", "Swift",
                "Wild",
            ],
            &[
                "Wolves", "Lions", "Eagles", "Bears", "Hawks", "Tigers", "Foxes", "Ravens",
            ],
            "They",
        ),
        key: "team",
        article: "the ",
        attributes: [
            Attribute {
                key: "sport",
                values: Values::Words(&[
                    "football",
                    "hockey",
                    "rugby",
                    "basketball",
                    "cricket",
                    "handball",
                    "volleyball",
                    "baseball",
                    "polo",
                    "ice hockey",
                ]),
                predicates: &["play {}"],
                asides: &["{a} {} team"],
                openings: &[],
            },
            Attribute {
                key: "from",
                values: Values::Words(&TOWNS),
                predicates: &["come from {}", "are based in {}"],
                asides: &["based in {}"],
                openings: &["Based in {}"],
            },
            Attribute {
                key: "coach",
                values: Values::People,
                predicates: &["are coached by {}", "have {} as their coach"],
                asides: &["coached by {}"],
                openings: &["Coached by {}"],
            },
            Attribute {
                key: "founded",
                values: Values::Words(&YEARS),
                predicates: &["were founded in {}", "go back to {}"],
                asides: &["founded in {}"],
                openings: &["Founded in {}"],
            },
        ],
    },
    Kind {
        subjects: Subjects::Pairs(
            &[
                "Broken", "Burning", "Distant", "Frozen", "Hidden", "Last", "Lost", "Quiet",
                "Secret", "Silent",
            ],
            &[
                "Door", "Forest", "Garden", "Island", "Letter", "Mirror", "Mountain", "River",
                "Winter", "Voyage",
            ],
            "It",
        ),
        key: "book",
        article: "The ",
        attributes: [
            Attribute {
                key: "genre",
                values: Values::Words(&[
                    "novel", "poem", "play", "comedy", "mystery", "thriller", "romance", "satire",
                    "tragedy", "ballad", "epic", "essay",
                ]),
                predicates: &["is {a} {}"],
                asides: &["{a} {}"],
                openings: &[],
            },
            Attribute {
                key: "author",
                values: Values::People,
                predicates: &["was written by {}", "comes from the pen of {}"],
                asides: &["written by {}"],
                openings: &["Written by {}"],
            },
            Attribute {
                key: "published",
                values: Values::Words(&YEARS),
                predicates: &["was published in {}", "came out in {}"],
                asides: &["published in {}"],
                openings: &["Published in {}"],
            },
            Attribute {
                key: "about",
                values: Values::Words(&[
                    "the sea",
                    "a long war",
                    "two sisters",
                    "an old king",
                    "a lost dog",
                    "a small town",
                    "three brothers",
                    "a young thief",
                    "the moon",
                    "a great flood",
                    "a blind man",
                    "a secret love",
                    "the desert",
                    "an angry ghost",
                ]),
                predicates: &["is about {}", "tells of {}"],
                asides: &["about {}"],
                openings: &[],
            },
        ],
    },
];

pub const WOMEN: [&str; 12] = [
    "Ada", "Clara", "Emma", "Grace", "Helen", "Irene", "Julia", "Laura", "Maria", "Nora", "Rosa",
    "Sofia",
];

pub const MEN: [&str; 12] = [
    "Adam", "Boris", "Daniel", "Edgar", "Felix", "Henry", "Ivan", "Jonas", "Martin", "Oscar",
    "Peter", "Victor",
];

pub const LAST_NAMES: [&str; 20] = [
    "Abbott", "Baker", "Carter", "Dalton", "Evans", "Fisher", "Grant", "Hayes", "Keller",
    "Lambert", "Miller", "Norton", "Palmer", "Quinn", "Rossi", "Shaw", "Turner", "Walker", "Webb",
    "Young",
];

/// The names of towns that do not exist.
const TOWNS: [&str; 20] = [
    "Ardenby",
    "Belmar",
    "Corvale",
    "Dunmore",
    "Eastby",
    "Fairwell",
    "Glenbrook",
    "Harwick",
    "Istra",
    "Kelmont",
    "Lindow",
    "Marwick",
    "Norrby",
    "Oakfield",
    "Penrose",
    "Ravensby",
    "Selworth",
    "Torvik",
    "Upland",
    "Westmoor",
];

const YEARS: [&str; 18] = [
    "1851", "1858", "1863", "1869", "1874", "1880", "1887", "1892", "1896", "1903", "1908", "1912",
    "1920", "1926", "1934", "1950", "1966", "1988",
];

//! The words of the grammar.
//!
//! Verbs are grouped by the frames that they allow, and verbs with a second frame are left out. A verb that does not
//! need its object (`eat`), or that allows a clause (`mention`), a second object (`fetch`) or a causative (`break`),
//! would make some sentences acceptable that must be unacceptable. For the same reason, no verb has a past tense that
//! equals its base form (`hit`), and no adjective is also an adverb (`early`).

/// Singular or plural.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Singular,
    Plural,
}

/// The gender that a pronoun shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gender {
    Masculine,
    Feminine,
    /// Things and animals: `it`.
    Neuter,
    /// Masculine or feminine: `doctor`.
    Common,
}

/// A countable noun, or a name (whose plural is never used).
pub struct Noun {
    pub singular: &'static str,
    pub plural: &'static str,
    pub gender: Gender,
}

/// The forms of a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Base,
    Third,
    Past,
    Participle,
    Ing,
}

/// A verb: `write`, `writes`, `wrote`, `written`, `writing`.
pub struct Verb {
    base: &'static str,
    third: &'static str,
    past: &'static str,
    participle: &'static str,
    ing: &'static str,
}

impl Verb {
    pub fn form(&self, form: Form) -> &'static str {
        match form {
            Form::Base => self.base,
            Form::Third => self.third,
            Form::Past => self.past,
            Form::Participle => self.participle,
            Form::Ing => self.ing,
        }
    }

    /// The present tense with a third-person subject.
    pub fn present(&self, number: Number) -> &'static str {
        match number {
            Number::Singular => self.third,
            Number::Plural => self.base,
        }
    }
}

/// An adjective with its comparative, which `than` follows.
pub struct Gradable {
    pub positive: &'static str,
    pub comparative: &'static str,
}

/// A verb whose past tense and participle are the same word.
const fn verb(
    base: &'static str,
    third: &'static str,
    past: &'static str,
    ing: &'static str,
) -> Verb {
    Verb {
        base,
        third,
        past,
        participle: past,
        ing,
    }
}

const fn irregular(
    base: &'static str,
    third: &'static str,
    past: &'static str,
    participle: &'static str,
    ing: &'static str,
) -> Verb {
    Verb {
        base,
        third,
        past,
        participle,
        ing,
    }
}

const fn noun(singular: &'static str, plural: &'static str, gender: Gender) -> Noun {
    Noun {
        singular,
        plural,
        gender,
    }
}

const fn name(singular: &'static str, gender: Gender) -> Noun {
    noun(singular, singular, gender)
}

const fn gradable(positive: &'static str, comparative: &'static str) -> Gradable {
    Gradable {
        positive,
        comparative,
    }
}

use Gender::{Common, Feminine, Masculine, Neuter};

/// Nouns for people of one gender.
pub static GENDERED: [Noun; 18] = [
    noun("man", "men", Masculine),
    noun("woman", "women", Feminine),
    noun("boy", "boys", Masculine),
    noun("girl", "girls", Feminine),
    noun("king", "kings", Masculine),
    noun("queen", "queens", Feminine),
    noun("prince", "princes", Masculine),
    noun("princess", "princesses", Feminine),
    noun("father", "fathers", Masculine),
    noun("mother", "mothers", Feminine),
    noun("brother", "brothers", Masculine),
    noun("sister", "sisters", Feminine),
    noun("son", "sons", Masculine),
    noun("daughter", "daughters", Feminine),
    noun("uncle", "uncles", Masculine),
    noun("aunt", "aunts", Feminine),
    noun("grandfather", "grandfathers", Masculine),
    noun("grandmother", "grandmothers", Feminine),
];

/// Nouns for people of either gender.
pub static COMMON: [Noun; 18] = [
    noun("teacher", "teachers", Common),
    noun("doctor", "doctors", Common),
    noun("student", "students", Common),
    noun("farmer", "farmers", Common),
    noun("singer", "singers", Common),
    noun("driver", "drivers", Common),
    noun("nurse", "nurses", Common),
    noun("lawyer", "lawyers", Common),
    noun("artist", "artists", Common),
    noun("pilot", "pilots", Common),
    noun("writer", "writers", Common),
    noun("painter", "painters", Common),
    noun("neighbor", "neighbors", Common),
    noun("child", "children", Common),
    noun("friend", "friends", Common),
    noun("guest", "guests", Common),
    noun("engineer", "engineers", Common),
    noun("soldier", "soldiers", Common),
];

pub static NAMES: [Noun; 16] = [
    name("John", Masculine),
    name("Mary", Feminine),
    name("Peter", Masculine),
    name("Anna", Feminine),
    name("David", Masculine),
    name("Susan", Feminine),
    name("Robert", Masculine),
    name("Julia", Feminine),
    name("Thomas", Masculine),
    name("Laura", Feminine),
    name("Henry", Masculine),
    name("Emma", Feminine),
    name("Paul", Masculine),
    name("Clara", Feminine),
    name("Simon", Masculine),
    name("Helen", Feminine),
];

pub static ANIMALS: [Noun; 14] = [
    noun("dog", "dogs", Neuter),
    noun("cat", "cats", Neuter),
    noun("horse", "horses", Neuter),
    noun("bird", "birds", Neuter),
    noun("rabbit", "rabbits", Neuter),
    noun("fox", "foxes", Neuter),
    noun("wolf", "wolves", Neuter),
    noun("mouse", "mice", Neuter),
    noun("goose", "geese", Neuter),
    noun("cow", "cows", Neuter),
    noun("lion", "lions", Neuter),
    noun("tiger", "tigers", Neuter),
    noun("bear", "bears", Neuter),
    noun("elephant", "elephants", Neuter),
];

pub static THINGS: [Noun; 28] = [
    noun("book", "books", Neuter),
    noun("letter", "letters", Neuter),
    noun("box", "boxes", Neuter),
    noun("key", "keys", Neuter),
    noun("table", "tables", Neuter),
    noun("cup", "cups", Neuter),
    noun("bottle", "bottles", Neuter),
    noun("ladder", "ladders", Neuter),
    noun("knife", "knives", Neuter),
    noun("apple", "apples", Neuter),
    noun("picture", "pictures", Neuter),
    noun("map", "maps", Neuter),
    noun("chair", "chairs", Neuter),
    noun("lamp", "lamps", Neuter),
    noun("basket", "baskets", Neuter),
    noun("shelf", "shelves", Neuter),
    noun("carpet", "carpets", Neuter),
    noun("mirror", "mirrors", Neuter),
    noun("umbrella", "umbrellas", Neuter),
    noun("wagon", "wagons", Neuter),
    noun("guitar", "guitars", Neuter),
    noun("watch", "watches", Neuter),
    noun("bicycle", "bicycles", Neuter),
    noun("blanket", "blankets", Neuter),
    noun("candle", "candles", Neuter),
    noun("coat", "coats", Neuter),
    noun("toy", "toys", Neuter),
    noun("statue", "statues", Neuter),
];

pub static PLACES: [Noun; 14] = [
    noun("garden", "gardens", Neuter),
    noun("house", "houses", Neuter),
    noun("river", "rivers", Neuter),
    noun("park", "parks", Neuter),
    noun("school", "schools", Neuter),
    noun("station", "stations", Neuter),
    noun("kitchen", "kitchens", Neuter),
    noun("bridge", "bridges", Neuter),
    noun("market", "markets", Neuter),
    noun("tower", "towers", Neuter),
    noun("church", "churches", Neuter),
    noun("castle", "castles", Neuter),
    noun("tree", "trees", Neuter),
    noun("lake", "lakes", Neuter),
];

/// Nouns that cannot be counted.
pub static MASS: [&str; 14] = [
    "furniture",
    "luggage",
    "equipment",
    "jewelry",
    "clothing",
    "mud",
    "sand",
    "dust",
    "cutlery",
    "machinery",
    "pottery",
    "garbage",
    "homework",
    "gravel",
];

/// Adjectives for people and animals.
pub static ANIMATE_ADJECTIVES: [&str; 14] = [
    "old", "young", "tall", "small", "clever", "happy", "proud", "quiet", "angry", "tired", "kind",
    "brave", "lazy", "strong",
];

/// Adjectives for things and places.
pub static THING_ADJECTIVES: [&str; 14] = [
    "old",
    "new",
    "small",
    "large",
    "heavy",
    "red",
    "green",
    "broken",
    "clean",
    "cheap",
    "expensive",
    "dirty",
    "strange",
    "ugly",
];

pub static GRADABLE: [Gradable; 16] = [
    gradable("old", "older"),
    gradable("young", "younger"),
    gradable("tall", "taller"),
    gradable("small", "smaller"),
    gradable("strong", "stronger"),
    gradable("proud", "prouder"),
    gradable("kind", "kinder"),
    gradable("brave", "braver"),
    gradable("happy", "happier"),
    gradable("lazy", "lazier"),
    gradable("heavy", "heavier"),
    gradable("rich", "richer"),
    gradable("careful", "more careful"),
    gradable("patient", "more patient"),
    gradable("generous", "more generous"),
    gradable("famous", "more famous"),
];

/// Verbs without an object.
pub static INTRANSITIVE: [Verb; 24] = [
    verb("sleep", "sleeps", "slept", "sleeping"),
    verb("laugh", "laughs", "laughed", "laughing"),
    verb("arrive", "arrives", "arrived", "arriving"),
    verb("sneeze", "sneezes", "sneezed", "sneezing"),
    verb("smile", "smiles", "smiled", "smiling"),
    verb("vanish", "vanishes", "vanished", "vanishing"),
    irregular("fall", "falls", "fell", "fallen", "falling"),
    verb("snore", "snores", "snored", "snoring"),
    verb("disappear", "disappears", "disappeared", "disappearing"),
    verb("yawn", "yawns", "yawned", "yawning"),
    verb("cough", "coughs", "coughed", "coughing"),
    verb("faint", "faints", "fainted", "fainting"),
    verb("hesitate", "hesitates", "hesitated", "hesitating"),
    verb("kneel", "kneels", "knelt", "kneeling"),
    verb("blush", "blushes", "blushed", "blushing"),
    verb("shiver", "shivers", "shivered", "shivering"),
    verb("giggle", "giggles", "giggled", "giggling"),
    verb("weep", "weeps", "wept", "weeping"),
    verb("cry", "cries", "cried", "crying"),
    irregular("rise", "rises", "rose", "risen", "rising"),
    verb("tremble", "trembles", "trembled", "trembling"),
    verb("sigh", "sighs", "sighed", "sighing"),
    verb("wait", "waits", "waited", "waiting"),
    verb("stumble", "stumbles", "stumbled", "stumbling"),
];

/// Verbs that need a person or an animal as their object.
pub static TO_ANIMATE: [Verb; 24] = [
    verb("admire", "admires", "admired", "admiring"),
    verb("praise", "praises", "praised", "praising"),
    verb("blame", "blames", "blamed", "blaming"),
    verb("greet", "greets", "greeted", "greeting"),
    verb("invite", "invites", "invited", "inviting"),
    verb("thank", "thanks", "thanked", "thanking"),
    verb("accuse", "accuses", "accused", "accusing"),
    verb("annoy", "annoys", "annoyed", "annoying"),
    verb("frighten", "frightens", "frightened", "frightening"),
    verb("protect", "protects", "protected", "protecting"),
    verb("rescue", "rescues", "rescued", "rescuing"),
    verb("insult", "insults", "insulted", "insulting"),
    verb("chase", "chases", "chased", "chasing"),
    verb("embarrass", "embarrasses", "embarrassed", "embarrassing"),
    verb("amuse", "amuses", "amused", "amusing"),
    verb("comfort", "comforts", "comforted", "comforting"),
    verb("punish", "punishes", "punished", "punishing"),
    verb("arrest", "arrests", "arrested", "arresting"),
    verb("ridicule", "ridicules", "ridiculed", "ridiculing"),
    irregular("forsake", "forsakes", "forsook", "forsaken", "forsaking"),
    verb("mislead", "misleads", "misled", "misleading"),
    verb("flatter", "flatters", "flattered", "flattering"),
    verb("scold", "scolds", "scolded", "scolding"),
    verb("despise", "despises", "despised", "despising"),
];

/// Verbs that need a thing as their object.
pub static TO_THING: [Verb; 20] = [
    verb("carry", "carries", "carried", "carrying"),
    verb("repair", "repairs", "repaired", "repairing"),
    verb("own", "owns", "owned", "owning"),
    verb("describe", "describes", "described", "describing"),
    verb("destroy", "destroys", "destroyed", "destroying"),
    verb("borrow", "borrows", "borrowed", "borrowing"),
    verb("examine", "examines", "examined", "examining"),
    verb("damage", "damages", "damaged", "damaging"),
    verb("lift", "lifts", "lifted", "lifting"),
    verb("polish", "polishes", "polished", "polishing"),
    verb("inspect", "inspects", "inspected", "inspecting"),
    verb("wrap", "wraps", "wrapped", "wrapping"),
    verb("label", "labels", "labeled", "labeling"),
    verb("ruin", "ruins", "ruined", "ruining"),
    verb("replace", "replaces", "replaced", "replacing"),
    verb("bury", "buries", "buried", "burying"),
    verb("remove", "removes", "removed", "removing"),
    verb("touch", "touches", "touched", "touching"),
    verb("cover", "covers", "covered", "covering"),
    verb("admire", "admires", "admired", "admiring"),
];

/// Verbs with a clause out of which a question can be asked: `what did he say that she saw`.
pub static BRIDGE: [Verb; 6] = [
    verb("say", "says", "said", "saying"),
    verb("think", "thinks", "thought", "thinking"),
    verb("believe", "believes", "believed", "believing"),
    verb("claim", "claims", "claimed", "claiming"),
    verb("hope", "hopes", "hoped", "hoping"),
    verb("suspect", "suspects", "suspected", "suspecting"),
];

/// Verbs with a `that` clause and neither an object nor a question.
pub static CLAUSAL: [Verb; 8] = [
    verb("think", "thinks", "thought", "thinking"),
    verb("hope", "hopes", "hoped", "hoping"),
    verb("insist", "insists", "insisted", "insisting"),
    verb("complain", "complains", "complained", "complaining"),
    verb("boast", "boasts", "boasted", "boasting"),
    verb("pretend", "pretends", "pretended", "pretending"),
    verb("remark", "remarks", "remarked", "remarking"),
    verb("joke", "jokes", "joked", "joking"),
];

/// Verbs with an indirect question and no `that` clause.
pub static INTERROGATIVE: [Verb; 4] = [
    verb("wonder", "wonders", "wondered", "wondering"),
    verb("inquire", "inquires", "inquired", "inquiring"),
    verb("ponder", "ponders", "pondered", "pondering"),
    verb(
        "investigate",
        "investigates",
        "investigated",
        "investigating",
    ),
];

/// Verbs with `to` and an infinitive, and no `-ing`.
pub static WITH_TO: [Verb; 9] = [
    verb("decide", "decides", "decided", "deciding"),
    verb("hope", "hopes", "hoped", "hoping"),
    verb("refuse", "refuses", "refused", "refusing"),
    verb("manage", "manages", "managed", "managing"),
    verb("promise", "promises", "promised", "promising"),
    verb("agree", "agrees", "agreed", "agreeing"),
    verb("expect", "expects", "expected", "expecting"),
    verb("pretend", "pretends", "pretended", "pretending"),
    verb("wish", "wishes", "wished", "wishing"),
];

/// Verbs with `-ing`, and no `to`.
pub static WITH_ING: [Verb; 6] = [
    verb("enjoy", "enjoys", "enjoyed", "enjoying"),
    verb("finish", "finishes", "finished", "finishing"),
    verb("avoid", "avoids", "avoided", "avoiding"),
    verb("resist", "resists", "resisted", "resisting"),
    verb("postpone", "postpones", "postponed", "postponing"),
    verb("risk", "risks", "risked", "risking"),
];

/// Verbs with two objects, or with one object and `to`: `lent her the book`. All of them need the thing, unlike `give`
/// (`she gave to the poor`).
pub static DATIVE: [Verb; 5] = [
    verb("hand", "hands", "handed", "handing"),
    verb("lend", "lends", "lent", "lending"),
    irregular("show", "shows", "showed", "shown", "showing"),
    verb("send", "sends", "sent", "sending"),
    verb("offer", "offers", "offered", "offering"),
];

/// Verbs with one object and `to`, never two: `explained the book to her`.
pub static DATIVE_TO: [Verb; 5] = [
    verb("explain", "explains", "explained", "explaining"),
    verb("describe", "describes", "described", "describing"),
    verb("reveal", "reveals", "revealed", "revealing"),
    verb("donate", "donates", "donated", "donating"),
    verb(
        "demonstrate",
        "demonstrates",
        "demonstrated",
        "demonstrating",
    ),
];

/// Prepositions for the place of somebody or something, before a noun phrase.
pub static NEAR: [&[&str]; 5] = [
    &["near"],
    &["behind"],
    &["beside"],
    &["next", "to"],
    &["in", "front", "of"],
];

/// Adverbs of manner.
pub static MANNER: [&str; 6] = [
    "quickly",
    "carefully",
    "quietly",
    "slowly",
    "secretly",
    "eagerly",
];

/// Adverbs of frequency. `rarely` is left out because it allows `ever`, and `sometimes` because it may stand anywhere.
pub static FREQUENCY: [&str; 3] = ["often", "always", "usually"];

/// Conjunctions of clauses. A question cannot ask for an object inside of such a clause.
pub static ADJUNCT: [&str; 4] = ["because", "before", "after", "while"];

/// Expressions of time that need the past tense.
pub static PAST_TIMES: [&[&str]; 5] = [
    &["yesterday"],
    &["last", "week"],
    &["last", "night"],
    &["two", "days", "ago"],
    &["a", "year", "ago"],
];
/// Expressions of time that need the future.
pub static FUTURE_TIMES: [&[&str]; 4] = [
    &["tomorrow"],
    &["next", "week"],
    &["next", "month"],
    &["next", "year"],
];

/// Auxiliaries before the base form.
pub static MODALS: [&str; 5] = ["will", "can", "must", "should", "might"];

/// Pronouns that show case: nominative, accusative.
pub static PRONOUNS: [(&str, &str); 5] = [
    ("I", "me"),
    ("he", "him"),
    ("she", "her"),
    ("we", "us"),
    ("they", "them"),
];

//! Turns the syntax line of a command into the tree of arguments that `COMMAND DOCS` shows.
//!
//! ```text
//! line  = item …                         word with small letters: an argument; without: a token
//! item  = word | [ line | line … ] | < line | line … > | ...        @1.2.3 behind an item: since when
//! ```
//!
//! A token takes the arguments behind it. `x [x ...]` is one argument that may be repeated. The lines are our own
//! constants, so a malformed line is a bug, which a test finds.

/// One argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Argument {
    /// Its name; for a group, the joined names of its parts.
    pub name: String,
    /// The type, as `COMMAND DOCS` names it.
    pub kind: &'static str,
    /// The word that precedes it, or that it consists of.
    pub token: Option<String>,
    /// The version that introduced it, if that is not the command's.
    pub since: Option<String>,
    /// For keys: which key specification finds it.
    pub key_spec: Option<usize>,
    /// Whether it may be left out.
    pub optional: bool,
    /// Whether it may be repeated.
    pub multiple: bool,
    /// Whether its token is repeated with it.
    pub multiple_token: bool,
    /// The parts of a block, the choices of a oneof.
    pub arguments: Vec<Argument>,
}

#[derive(Clone, Debug)]
struct Item {
    what: What,
    since: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Word(String),
    Optional(Vec<Vec<Item>>),
    Choice(Vec<Vec<Item>>),
    Dots,
}

/// Repetitions are found by comparing items, whatever their version.
impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.what == other.what
    }
}

impl Eq for Item {}

impl Item {
    fn is_token(&self) -> bool {
        matches!(&self.what, What::Word(word) if !word.bytes().any(|b| b.is_ascii_lowercase()))
    }
}

/// The arguments of a command that finds its keys by `key_specs` specifications.
pub fn arguments(syntax: &str, key_specs: usize) -> Vec<Argument> {
    let mut reader = Reader { rest: syntax, closing: None };
    let mut alternatives = reader.alternatives();
    let mut arguments =
        if alternatives.len() == 1 { convert(&alternatives.remove(0)) } else { vec![one_of(&alternatives)] };
    number_keys(&mut arguments, key_specs, &mut 0);
    arguments
}

struct Reader<'a> {
    rest: &'a str,
    /// The bracket that ended the last line.
    closing: Option<char>,
}

impl Reader<'_> {
    /// Lines between bars, up to a closing bracket or the end.
    fn alternatives(&mut self) -> Vec<Vec<Item>> {
        let mut alternatives = vec![Vec::new()];
        loop {
            self.rest = self.rest.trim_start();
            let Some(first) = self.rest.chars().next() else {
                self.closing = None;
                return alternatives;
            };
            let line = alternatives.last_mut().expect("it is never empty");
            match first {
                '|' => {
                    self.rest = &self.rest[1..];
                    alternatives.push(Vec::new());
                }
                ']' | '>' => {
                    self.closing = Some(first);
                    self.rest = &self.rest[1..];
                    return alternatives;
                }
                '[' | '<' => {
                    self.rest = &self.rest[1..];
                    let inner = self.alternatives();
                    let what = if first == '[' { What::Optional(inner) } else { What::Choice(inner) };
                    line.push(Item { what, since: self.since() });
                }
                _ => {
                    let word = self.word();
                    let what = if word == "..." { What::Dots } else { What::Word(word) };
                    line.push(Item { what, since: self.since() });
                }
            }
        }
    }

    fn word(&mut self) -> String {
        let end = self.rest.find([' ', '|', ']', '>', '[', '<', '@']).unwrap_or(self.rest.len()).max(1);
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn since(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix('@')?;
        Some(self.word())
    }
}

fn convert(items: &[Item]) -> Vec<Argument> {
    let mut arguments = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        let (argument, used) = next(rest);
        arguments.extend(argument);
        rest = &rest[used..];
    }
    arguments
}

/// The first argument, and how many items it took. Dots alone are not an argument.
fn next(items: &[Item]) -> (Option<Argument>, usize) {
    if let Some(unit) = repeated(items) {
        let inner = convert(&items[..unit]);
        let multiple_token = items[0].is_token();
        let inner = group(inner);
        let since = items[unit].since.clone().or(inner.since.clone());
        let argument = Argument { multiple: true, multiple_token, since, ..inner };
        return (Some(argument), unit + 1);
    }
    let first = &items[0];
    let argument = match &first.what {
        What::Dots => return (None, 1),
        What::Word(word) if first.is_token() => return token(word, items),
        What::Word(word) => Argument { name: word.clone(), kind: kind_of(word), ..Argument::default() },
        What::Choice(alternatives) => one_of(alternatives),
        What::Optional(alternatives) => return (Some(optional(alternatives, first.since.clone())), 1),
    };
    (Some(Argument { since: first.since.clone(), ..argument }), 1)
}

/// Whether items begin with `x … [x … ...]`, and how long `x …` is.
fn repeated(items: &[Item]) -> Option<usize> {
    (1..items.len()).find(|&unit| match &items[unit].what {
        What::Optional(alternatives) => match &alternatives[..] {
            [line] => {
                line.last().is_some_and(|last| last.what == What::Dots) && line[..line.len() - 1] == items[..unit]
            }
            _ => false,
        },
        _ => false,
    })
}

/// A token with the arguments behind it, or alone.
fn token(word: &str, items: &[Item]) -> (Option<Argument>, usize) {
    let mut taken = Vec::new();
    let mut used = 1;
    let mut since = items[0].since.clone();
    while let Some(item) = items.get(used) {
        if item.is_token() || matches!(item.what, What::Optional(_) | What::Dots) {
            break;
        }
        let (argument, more) = next(&items[used..]);
        since = since.or_else(|| argument.as_ref().and_then(|argument| argument.since.clone()));
        taken.extend(argument.map(|argument| Argument { since: None, ..argument }));
        used += more;
    }
    let argument = if taken.is_empty() {
        Argument { name: word.to_ascii_lowercase(), kind: "pure-token", ..Argument::default() }
    } else {
        group(taken)
    };
    // `"\"\""` stands for an empty word.
    let word = if word == "\"\"" { String::new() } else { word.to_owned() };
    (Some(Argument { token: Some(word), since, ..argument }), used)
}

fn optional(alternatives: &[Vec<Item>], since: Option<String>) -> Argument {
    let argument = match alternatives {
        // `[x [x ...]]`: the content may be repeated, and all of it may be left out.
        [line] => group(convert(line)),
        _ => one_of(alternatives),
    };
    Argument { optional: true, since: since.or(argument.since), ..argument }
}

fn one_of(alternatives: &[Vec<Item>]) -> Argument {
    let arguments: Vec<Argument> = alternatives.iter().map(|line| group(convert(line))).collect();
    Argument { name: joined(&arguments), kind: "oneof", arguments, ..Argument::default() }
}

/// Combines several arguments into one.
fn group(mut arguments: Vec<Argument>) -> Argument {
    if arguments.len() == 1 {
        return arguments.remove(0);
    }
    Argument { name: joined(&arguments), kind: "block", arguments, ..Argument::default() }
}

fn joined(arguments: &[Argument]) -> String {
    let names: Vec<&str> = arguments.iter().map(|argument| argument.name.as_str()).collect();
    let known = |word: &str| names.contains(&word);
    match () {
        () if known("nx") && known("xx") => "condition".into(),
        () if known("keepttl") || known("seconds") && known("milliseconds") => "expiration".into(),
        () => names.join("_"),
    }
}

fn kind_of(name: &str) -> &'static str {
    match name {
        "key" | "key1" | "key2" | "newkey" | "source" | "destination" | "destkey" | "sourcekey" => "key",
        "unix-time-seconds" | "unix-time-milliseconds" => "unix-time",
        "pattern" | "by-pattern" | "get-pattern" => "pattern",
        "score" | "weight" | "longitude" | "latitude" | "radius" | "width" | "height" => "double",
        "seconds" | "milliseconds" | "count" | "cursor" | "offset" | "index" | "index1" | "index2" | "start"
        | "end" | "stop" | "increment" | "decrement" | "numkeys" | "db" | "destination-db" | "timeout"
        | "client-id" | "protover" | "numreplicas" | "numlocal" | "version" | "rank" | "len" | "limit" | "port"
        | "min-match-len" => "integer",
        _ => "string",
    }
}

fn number_keys(arguments: &mut [Argument], key_specs: usize, next: &mut usize) {
    for argument in arguments {
        if argument.kind == "key" {
            match key_specs.checked_sub(1) {
                None => argument.kind = "string",
                Some(last) => argument.key_spec = Some((*next).min(last)),
            }
            *next += 1;
        }
        number_keys(&mut argument.arguments, key_specs, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line: `name:kind=TOKEN?*+@since(parts)`.
    fn shown(argument: &Argument) -> String {
        let mut text = format!("{}:{}", argument.name, argument.kind);
        if let Some(token) = &argument.token {
            text += &format!("={token}");
        }
        text += if argument.optional { "?" } else { "" };
        text += if argument.multiple { "*" } else { "" };
        text += if argument.multiple_token { "+" } else { "" };
        text += &argument.key_spec.map_or(String::new(), |spec| format!("#{spec}"));
        text += &argument.since.as_ref().map_or(String::new(), |since| format!("@{since}"));
        if !argument.arguments.is_empty() {
            text += &format!("({})", argument.arguments.iter().map(shown).collect::<Vec<_>>().join(" "));
        }
        text
    }

    #[track_caller]
    fn check(syntax: &str, key_specs: usize, tree: &str) {
        assert_eq!(arguments(syntax, key_specs).iter().map(shown).collect::<Vec<_>>().join(" "), tree);
    }

    #[test]
    fn words_tokens_and_groups_nest_as_redis_documents_them() {
        check("", 0, "");
        check("key seconds value", 1, "key:key#0 seconds:integer value:string");
        check("key newkey [NX]", 2, "key:key#0 newkey:key#1 nx:pure-token=NX?");
        check(
            "key value [NX | XX@2.6.12] [GET@6.2.0] [EX seconds@2.6.12 | PXAT unix-time-milliseconds | KEEPTTL@6.0.0]",
            1,
            "key:key#0 value:string condition:oneof?(nx:pure-token=NX xx:pure-token=XX@2.6.12) \
             get:pure-token=GET?@6.2.0 expiration:oneof?(seconds:integer=EX@2.6.12 \
             unix-time-milliseconds:unix-time=PXAT keepttl:pure-token=KEEPTTL@6.0.0)",
        );
        check(
            "[TYPE <NORMAL | MASTER>@5.0.0] [ID client-id [client-id ...]@6.2.0]",
            0,
            "normal_master:oneof=TYPE?@5.0.0(normal:pure-token=NORMAL master:pure-token=MASTER) \
             client-id:integer=ID?*@6.2.0",
        );
        check(
            "[protover [AUTH username password] [SETNAME clientname]]",
            0,
            "protover_username_password_clientname:block?(protover:integer \
             username_password:block=AUTH?(username:string password:string) clientname:string=SETNAME?)",
        );
        check(
            "<LIB-NAME libname | LIB-VER libver>",
            0,
            "libname_libver:oneof(libname:string=LIB-NAME libver:string=LIB-VER)",
        );
        check("[username@6.0.0] password", 0, "username:string?@6.0.0 password:string");
    }

    #[test]
    fn repetitions_are_found_with_and_without_their_token() {
        check("key [key ...]", 1, "key:key*#0");
        check("[section [section ...]]", 0, "section:string?*");
        check("key value [key value ...]", 1, "key_value:block*(key:key#0 value:string)");
        check("key [GET get-pattern [GET get-pattern ...]]", 1, "key:key#0 get-pattern:pattern=GET?*+");
        check(
            "[COUNT count] STREAMS key [key ...] id [id ...]",
            1,
            "count:integer=COUNT? key_id:block=STREAMS(key:key*#0 id:string*)",
        );
        check(
            "[FILTERBY <MODULE module-name | ACLCAT category>]",
            0,
            "module-name_category:oneof=FILTERBY?(module-name:string=MODULE category:string=ACLCAT)",
        );
    }
}

//! GEOSEARCH and its older relatives: find places within a circle or a box.

use super::super::zset::range::store;
use super::{ONE_PLACE_SET, distance_text, place, unit, write_place};
use crate::base::format;
use crate::core::key_spec::Look;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, Outcome, Words, args, flags};
use crate::keyspace::Key;
use crate::resp::{Args, Elements, Reply};
use crate::value::geo::{Place, Shape, middle};
use crate::value::listpack::Item;
use crate::value::zset::{AnyZset, Edge, ZsetRef, collect};

const NO_SUCH_MEMBER: CommandError = CommandError::Text("ERR could not decode requested zset member");
const SEARCH_TIME: &str = "O(N+log(M)) where N is the number of elements in the grid-aligned bounding box area around the shape provided as the filter and M is the number of items inside the shape";
const RADIUS_TIME: &str = "O(N+log(M)) where N is the number of elements inside the bounding box of the circular area delimited by center and radius and M is the number of items inside the index.";

const OPTIONS_OF_RADIUS: usize = 6;
const OPTIONS_OF_MEMBER: usize = 5;

/// The key behind STORE or STOREDIST. Of several, the last counts, because the result goes there.
const fn stored_at(word: &'static str, from: usize, look: fn(Args<'_>) -> Look) -> KeySpec {
    KeySpec { look: Some(look), ..KeySpec::behind(word, from as i32, "OW update") }
}

/// Where the last key behind a word is.
fn last_stored(args: Args<'_>, from: usize, word: &str) -> Look {
    let (mut words, mut found) = (Words::new(args, from), Look::Nowhere);
    while let Some(option) = words.next() {
        if words.left() > 0 && (args::is(option, "STORE") || args::is(option, "STOREDIST")) {
            if args::is(option, word) {
                found = Look::At(args.len() - words.left());
            }
            words.pass_over(1);
        } else if args::is(option, "COUNT") {
            words.pass_over(1);
        }
    }
    found
}

pub(super) static GEOSEARCH: Command = Command {
    name: "GEOSEARCH",
    arity: Arity::AtLeast(7),
    handler: Handler::Data(|call, reply| search(call, Kind::Search, reply)),
    since: "6.2.0",
    complexity: SEARCH_TIME,
    syntax: "key [FROMMEMBER member | FROMLONLAT longitude latitude] <BYRADIUS radius <M | KM | FT | MI> | BYBOX width height <M | KM | FT | MI> | BYPOLYGON num-vertices longitude latitude [longitude latitude ...]> [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]",
    summary: "Gives the places within a circle, a box or a polygon.",
    ..ONE_PLACE_SET
};

pub(super) static GEOSEARCHSTORE: Command = Command {
    name: "GEOSEARCHSTORE",
    arity: Arity::AtLeast(8),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec::at(1, "OW update"), KeySpec::at(2, "RO access")]),
    log: LogRule::Effects, // as the destination's whole state
    handler: Handler::Data(|call, reply| search(call, Kind::SearchStore, reply)),
    syntax: "destination source [FROMMEMBER member | FROMLONLAT longitude latitude] <BYRADIUS radius <M | KM | FT | MI> | BYBOX width height <M | KM | FT | MI> | BYPOLYGON num-vertices longitude latitude [longitude latitude ...]> [ASC | DESC] [COUNT count [ANY]] [STOREDIST]",
    summary: "Stores the places within a circle, a box or a polygon.",
    ..GEOSEARCH
};

pub(super) static GEORADIUS: Command = Command {
    name: "GEORADIUS",
    arity: Arity::AtLeast(6),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::MOVABLEKEYS),
    keys: Keys(&[
        KeySpec::at(1, "RO access"),
        stored_at("STORE", OPTIONS_OF_RADIUS, |args| last_stored(args, OPTIONS_OF_RADIUS, "STORE")),
        stored_at("STOREDIST", OPTIONS_OF_RADIUS, |args| last_stored(args, OPTIONS_OF_RADIUS, "STOREDIST")),
    ]),
    log: LogRule::Effects, // as the destination's whole state
    handler: Handler::Data(|call, reply| search(call, Kind::Radius { read_only: false }, reply)),
    complexity: RADIUS_TIME,
    syntax: "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY@6.2.0]] [ASC | DESC] [STORE storekey | STOREDIST storedistkey]",
    summary: "Gives or stores the places within a distance of coordinates.",
    ..ONE_PLACE_SET
};

pub(super) static GEORADIUS_RO: Command = Command {
    name: "GEORADIUS_RO",
    arity: Arity::AtLeast(6),
    handler: Handler::Data(|call, reply| search(call, Kind::Radius { read_only: true }, reply)),
    since: "3.2.10",
    complexity: RADIUS_TIME,
    syntax: "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY@6.2.0]] [ASC | DESC]",
    summary: "Gives the places within a distance of coordinates.",
    ..ONE_PLACE_SET
};

pub(super) static GEORADIUSBYMEMBER: Command = Command {
    name: "GEORADIUSBYMEMBER",
    arity: Arity::AtLeast(5),
    keys: Keys(&[
        KeySpec::at(1, "RO access"),
        stored_at("STORE", OPTIONS_OF_MEMBER, |args| last_stored(args, OPTIONS_OF_MEMBER, "STORE")),
        stored_at("STOREDIST", OPTIONS_OF_MEMBER, |args| last_stored(args, OPTIONS_OF_MEMBER, "STOREDIST")),
    ]),
    handler: Handler::Data(|call, reply| search(call, Kind::Member { read_only: false }, reply)),
    syntax: "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY@6.2.0]] [ASC | DESC] [STORE storekey | STOREDIST storedistkey]",
    summary: "Gives or stores the places within a distance of another.",
    ..GEORADIUS
};

pub(super) static GEORADIUSBYMEMBER_RO: Command = Command {
    name: "GEORADIUSBYMEMBER_RO",
    arity: Arity::AtLeast(5),
    handler: Handler::Data(|call, reply| search(call, Kind::Member { read_only: true }, reply)),
    syntax: "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY@6.2.0]] [ASC | DESC]",
    summary: "Gives the places within a distance of another.",
    ..GEORADIUS_RO
};

/// The variant of the command, which decides what words it accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Search,
    SearchStore,
    Radius { read_only: bool },
    Member { read_only: bool },
}

impl Kind {
    fn is_search(self) -> bool {
        matches!(self, Kind::Search | Kind::SearchStore)
    }

    fn may_name_a_store(self) -> bool {
        matches!(self, Kind::Radius { read_only: false } | Kind::Member { read_only: false })
    }
}

/// The options of a search.
#[derive(Default)]
struct Query {
    /// Whether a center was given. It stays unknown if its key is missing.
    has_center: bool,
    /// Whether the center was given as coordinates.
    from_place: bool,
    center: Option<Place>,
    shape: Option<Shape>,
    /// Meters in the unit of distances.
    unit: f64,
    with_distance: bool,
    with_score: bool,
    with_place: bool,
    ascending: bool,
    descending: bool,
    any: bool,
    /// 0 for all.
    count: usize,
    /// The argument with the key to store at.
    store_at: Option<usize>,
    store_distances: bool,
}

/// The source: `None` if its key is missing.
type Source<'a> = Option<ZsetRef<'a>>;

fn place_of_member(zset: ZsetRef<'_>, member: &[u8]) -> Result<Place, CommandError> {
    zset.score(member).map(Place::of_score).ok_or(NO_SUCH_MEMBER)
}

fn length(text: &[u8], otherwise: &'static str) -> Result<f64, CommandError> {
    format::parse_double(text).ok_or(CommandError::OutOfRange(otherwise))
}

impl Query {
    fn parse(args: Args<'_>, kind: Kind, source: Source<'_>) -> Result<Query, CommandError> {
        let mut query = Query { unit: 1.0, ..Query::default() };
        let first = match kind {
            Kind::Search => 2,
            Kind::SearchStore => {
                query.store_at = Some(1);
                3
            }
            Kind::Radius { .. } => {
                query.set_center(place(args.at(2), args.at(3))?);
                query.set_circle(args.at(4), args.at(5))?;
                OPTIONS_OF_RADIUS
            }
            Kind::Member { .. } => {
                if let Some(zset) = source {
                    query.set_center(place_of_member(zset, args.at(2))?);
                    query.set_circle(args.at(3), args.at(4))?;
                }
                OPTIONS_OF_MEMBER
            }
        };
        let mut words = Words::new(args, first);
        while let Some(word) = words.next() {
            if query.take_flag(word) || query.take_count(word, &mut words)? {
                continue;
            }
            let taken = if kind.is_search() {
                query.take_search_word(word, &mut words, source)? || {
                    let distances = kind == Kind::SearchStore && args::is(word, "STOREDIST");
                    query.store_distances |= distances;
                    distances
                }
            } else {
                kind.may_name_a_store() && query.take_store(word, &mut words, args.len())
            };
            if !taken {
                return Err(CommandError::Syntax);
            }
        }
        query.check(args.at(0), kind)?;
        Ok(query)
    }

    fn set_center(&mut self, center: Place) {
        (self.has_center, self.center) = (true, Some(center));
    }

    fn set_circle(&mut self, radius: &[u8], word: &[u8]) -> Result<(), CommandError> {
        let radius = length(radius, "need numeric radius")?;
        if radius < 0.0 {
            return Err(CommandError::OutOfRange("radius cannot be negative"));
        }
        self.unit = unit(word)?;
        self.shape = Some(Shape::Circle { radius: radius * self.unit });
        Ok(())
    }

    fn set_box(&mut self, width: &[u8], height: &[u8], word: &[u8]) -> Result<(), CommandError> {
        let width = length(width, "need numeric width")?;
        let height = length(height, "need numeric height")?;
        if width < 0.0 || height < 0.0 {
            return Err(CommandError::OutOfRange("height or width cannot be negative"));
        }
        self.unit = unit(word)?;
        self.shape = Some(Shape::Box { width: width * self.unit, height: height * self.unit });
        Ok(())
    }

    /// Whether neither a center was given, which a polygon has by itself, nor another shape.
    fn may_be_a_polygon(&self) -> bool {
        match &self.shape {
            None => !self.has_center,
            Some(shape) => matches!(shape, Shape::Polygon { .. }),
        }
    }

    fn set_polygon(&mut self, words: &mut Words<'_>) -> Result<(), CommandError> {
        let count = format::parse_i64(words.value()?).ok_or(CommandError::Text("ERR invalid number of vertices"))?;
        let count = usize::try_from(count).ok().filter(|&count| count >= 3 && count <= words.left() / 2);
        let count = count.ok_or(CommandError::Text("ERR GEOSEARCH BYPOLYGON must have at least 3 vertices"))?;
        let corners = (0..count).map(|_| place(words.value()?, words.value()?));
        let corners: Vec<Place> = corners.collect::<Result<_, _>>()?;
        self.set_center(middle(&corners));
        self.shape = Some(Shape::Polygon { corners });
        Ok(())
    }

    /// Takes a word without a value.
    fn take_flag(&mut self, word: &[u8]) -> bool {
        match word {
            word if args::is(word, "WITHDIST") => self.with_distance = true,
            word if args::is(word, "WITHHASH") => self.with_score = true,
            word if args::is(word, "WITHCOORD") => self.with_place = true,
            word if args::is(word, "ANY") => self.any = true,
            word if args::is(word, "ASC") => (self.ascending, self.descending) = (true, false),
            word if args::is(word, "DESC") => (self.ascending, self.descending) = (false, true),
            _ => return false,
        }
        true
    }

    fn take_count(&mut self, word: &[u8], words: &mut Words<'_>) -> Result<bool, CommandError> {
        if !args::is(word, "COUNT") || words.left() == 0 {
            return Ok(false);
        }
        let count = words.integer()?;
        if count <= 0 {
            return Err(CommandError::OutOfRange("COUNT must be > 0"));
        }
        self.count = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(true)
    }

    /// Takes the center and the extent of the search.
    fn take_search_word(
        &mut self,
        word: &[u8],
        words: &mut Words<'_>,
        source: Source<'_>,
    ) -> Result<bool, CommandError> {
        let left = words.left();
        if matches!(self.shape, Some(Shape::Polygon { .. })) && !args::is(word, "BYPOLYGON") {
            return Ok(false);
        }
        if args::is(word, "FROMMEMBER") && left >= 1 && !self.from_place {
            let member = words.value()?;
            self.has_center = true;
            if let Some(zset) = source {
                self.set_center(place_of_member(zset, member)?);
            }
        } else if args::is(word, "FROMLONLAT") && left >= 2 && (self.from_place || !self.has_center) {
            self.set_center(place(words.value()?, words.value()?)?);
            self.from_place = true;
        } else if args::is(word, "BYRADIUS") && left >= 2 && !matches!(self.shape, Some(Shape::Box { .. })) {
            self.set_circle(words.value()?, words.value()?)?;
        } else if args::is(word, "BYBOX") && left >= 3 && !matches!(self.shape, Some(Shape::Circle { .. })) {
            self.set_box(words.value()?, words.value()?, words.value()?)?;
        } else if args::is(word, "BYPOLYGON") && left >= 1 && self.may_be_a_polygon() {
            self.set_polygon(words)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes the destination of the older commands.
    fn take_store(&mut self, word: &[u8], words: &mut Words<'_>, len: usize) -> bool {
        let distances = args::is(word, "STOREDIST");
        if !(distances || args::is(word, "STORE")) || words.left() == 0 {
            return false;
        }
        (self.store_at, self.store_distances) = (Some(len - words.left()), distances);
        words.next().is_some()
    }

    fn check(&self, name: &[u8], kind: Kind) -> Result<(), CommandError> {
        if self.store_at.is_some() && (self.with_distance || self.with_score || self.with_place) {
            let what = if kind == Kind::SearchStore { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            let text = format!("{what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options");
            return Err(CommandError::err(text));
        }
        if kind.is_search() && !self.has_center {
            return Err(CommandError::echo("exactly one of FROMMEMBER or FROMLONLAT can be specified for ", name, ""));
        }
        if kind.is_search() && self.shape.is_none() {
            return Err(CommandError::echo("exactly one of BYRADIUS and BYBOX can be specified for ", name, ""));
        }
        if self.any && self.count == 0 {
            return Err(CommandError::Text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// The results, in the wanted order and number.
    fn find<'a>(&self, zset: ZsetRef<'a>) -> Vec<Found<'a>> {
        let (Some(center), Some(shape)) = (self.center, &self.shape) else { return Vec::new() };
        let mut found: Vec<Found<'a>> = Vec::new();
        let enough = if self.any { self.count } else { usize::MAX };
        for (from, to) in shape.score_ranges(center) {
            let ranks = zset.between(Edge::BeforeScore(from as f64), Edge::BeforeScore(to as f64));
            for (member, score) in zset.range(ranks, false) {
                if found.len() >= enough {
                    break;
                }
                let place = Place::of_score(score);
                if let Some(distance) = shape.distance_within(center, place) {
                    found.push(Found { member, score, place, distance });
                }
            }
        }
        // Which results are the first makes sense only with an order. ANY says that it does not matter.
        if self.ascending || (self.count > 0 && !self.any && !self.descending) {
            found.sort_by(|one, other| one.distance.total_cmp(&other.distance));
        } else if self.descending {
            found.sort_by(|one, other| other.distance.total_cmp(&one.distance));
        }
        if self.count > 0 {
            found.truncate(self.count);
        }
        found
    }

    fn write(&self, elements: &mut Elements<'_>, found: &Found<'_>) {
        let mut digits = itoa::Buffer::new();
        let member = found.member.as_bytes(&mut digits);
        let more = usize::from(self.with_distance) + usize::from(self.with_score) + usize::from(self.with_place);
        if more == 0 {
            return elements.bulk(member);
        }
        let mut parts = elements.array(1 + more);
        parts.bulk(member);
        if self.with_distance {
            parts.bulk(distance_text(found.distance / self.unit).as_bytes());
        }
        if self.with_score {
            parts.int(found.score as i64);
        }
        if self.with_place {
            write_place(&mut parts, found.place);
        }
        parts.end();
    }
}

/// A found place.
struct Found<'a> {
    member: Item<'a>,
    score: f64,
    place: Place,
    /// Meters from the center.
    distance: f64,
}

fn search(call: &mut Call<'_>, kind: Kind, reply: Reply<'_>) -> Outcome {
    let (args, limits) = (call.args, call.db.facts().limits);
    let source: Key<'_> = call.key(if kind == Kind::SearchStore { 2 } else { 1 });
    let zset = call.db.view::<AnyZset>(source)?;
    let query = Query::parse(args, kind, zset)?;
    let found = zset.map(|zset| query.find(zset)).unwrap_or_default();
    let Some(store_at) = query.store_at else {
        let mut elements = reply.array(found.len());
        found.iter().for_each(|found| query.write(&mut elements, found));
        return Ok(elements.done());
    };
    let score = |found: &Found<'_>| if query.store_distances { found.distance / query.unit } else { found.score };
    let members = found.iter().map(|found| (score(found), found.member.to_vec())).collect();
    let finished = collect(members, &limits);
    let destination = call.key(store_at);
    let before = call.db.changes();
    let event = if kind == Kind::SearchStore { "geosearchstore" } else { "georadiusstore" };
    let stored = store(call, destination, finished, event);
    if stored > 0 {
        call.db.count_as(before, stored as u64);
    }
    Ok(reply.int(stored as i64))
}

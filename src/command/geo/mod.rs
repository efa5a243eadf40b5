//! Commands for places on earth, which are stored as scores of sorted sets. Searches are in `search`.

mod search;
#[cfg(test)]
mod tests;

use super::zset::AddOptions;
use crate::base::format;
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, args, categories, flags,
};
use crate::resp::{Elements, Reply};
use crate::value::geo::Place;
use crate::value::zset::{Added, AnyZset};

/// The commands of this folder.
pub static COMMANDS: &[&Command] = &[
    &GEOADD,
    &GEODIST,
    &GEOHASH,
    &GEOPOS,
    &search::GEORADIUS,
    &search::GEORADIUSBYMEMBER,
    &search::GEORADIUSBYMEMBER_RO,
    &search::GEORADIUS_RO,
    &search::GEOSEARCH,
    &search::GEOSEARCHSTORE,
];

const UNKNOWN_UNIT: CommandError = CommandError::Text("ERR unsupported unit provided. please use M, KM, FT, MI");

const ONE_PLACE_SET: Command = Command {
    flags: flags::READONLY,
    categories: categories::GEO,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    since: "3.2.0",
    group: "geo",
    ..Command::DEFAULT
};

/// The meters in a unit.
fn unit(word: &[u8]) -> Result<f64, CommandError> {
    let units = [("M", 1.0), ("KM", 1000.0), ("FT", 0.3048), ("MI", 1609.34)];
    units.into_iter().find(|(name, _)| args::is(word, name)).map(|(_, meters)| meters).ok_or(UNKNOWN_UNIT)
}

/// The place that two arguments give.
fn place(longitude: &[u8], latitude: &[u8]) -> Result<Place, CommandError> {
    let number = |text| format::parse_double(text).ok_or(CommandError::NotFloat);
    let place = Place { longitude: number(longitude)?, latitude: number(latitude)? };
    if !place.is_valid() {
        let Place { longitude, latitude } = place;
        return Err(CommandError::err(format!("invalid longitude,latitude pair {longitude:.6},{latitude:.6}")));
    }
    Ok(place)
}

/// A distance, as replies print it.
fn distance_text(distance: f64) -> String {
    format!("{distance:.4}")
}

/// Writes longitude and latitude, with up to 17 decimals.
fn write_place(elements: &mut Elements<'_>, place: Place) {
    let mut pair = elements.array(2);
    for degrees in [place.longitude, place.latitude] {
        let text = format!("{degrees:.17}");
        pair.double(text.trim_end_matches('0').trim_end_matches('.'));
    }
    pair.end();
}

static GEOADD: Command = Command {
    name: "GEOADD",
    arity: Arity::AtLeast(5),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects, // as the scores of the members that changed
    handler: Handler::Data(geoadd),
    complexity: "O(log(N)) for each item added, where N is the number of elements in the sorted set.",
    syntax: "key [NX@6.2.0 | XX@6.2.0] [CH@6.2.0] longitude latitude member [longitude latitude member ...]",
    summary: "Adds places to a sorted set, or moves them.",
    ..ONE_PLACE_SET
};

fn geoadd(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (mut options, mut first) = (AddOptions::default(), 2);
    while let Some(word) =
        call.args.get(first).filter(|word| ["NX", "XX", "CH"].iter().any(|name| args::is(word, name)))
    {
        options.take(word);
        first += 1;
    }
    let words = call.args.len() - first;
    if words == 0 || !words.is_multiple_of(3) || options.check().is_err() {
        return Err(CommandError::Syntax);
    }
    let places = (first..call.args.len()).step_by(3).map(|at| {
        let place = place(call.args.at(at), call.args.at(at + 1))?;
        Ok((place.score() as f64, call.args.at(at + 2)))
    });
    let places: Vec<(f64, &[u8])> = places.collect::<Result<_, CommandError>>()?;
    let (key, rule) = (call.key(1), options.rule);
    let mut moved: Vec<(f64, &[u8])> = Vec::new();
    let (new, changed) = call.db.edit::<AnyZset, _>(key, |zset| {
        if zset.view().is_empty() && rule.only_old {
            return Ok(((0, 0), 0));
        }
        zset.expect(places.len(), places[0].1);
        let (mut new, mut changed) = (0, 0);
        for (score, member) in &places {
            match zset.add(member, *score, rule) {
                Added::New(_) => new += 1,
                Added::Changed(_) => changed += 1,
                _ => continue,
            }
            moved.push((*score, member));
        }
        Ok(((new, changed), new + changed))
    })?;
    if !moved.is_empty() {
        call.record(key).zset_set(moved.iter().copied());
        call.db.notify(NotifyFlags::ZSET, "zadd", key);
    }
    Ok(reply.int(if options.count_changed { new + changed } else { new } as i64))
}

static GEODIST: Command = Command {
    name: "GEODIST",
    arity: Arity::AtLeast(4),
    handler: Handler::Data(geodist),
    syntax: "key member1 member2 [M | KM | FT | MI]",
    summary: "Gives the distance between two places.",
    ..ONE_PLACE_SET
};

fn geodist(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let meters = match (call.args.len(), call.args.get(4)) {
        (5, Some(word)) => unit(word)?,
        (4, _) => 1.0,
        _ => return Err(CommandError::Syntax),
    };
    let (key, one, other) = (call.key(1), call.args.at(2), call.args.at(3));
    let scores = call.db.view::<AnyZset>(key)?.and_then(|zset| Some((zset.score(one)?, zset.score(other)?)));
    let Some((one, other)) = scores else { return Ok(reply.null()) };
    let distance = Place::of_score(one).distance(Place::of_score(other));
    Ok(reply.bulk(distance_text(distance / meters).as_bytes()))
}

static GEOHASH: Command = Command {
    name: "GEOHASH",
    arity: Arity::AtLeast(2),
    handler: Handler::Data(geohash),
    complexity: "O(1) for each member requested.",
    syntax: "key [member [member ...]]",
    summary: "Gives places as geohashes.",
    ..ONE_PLACE_SET
};

fn geohash(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let zset = call.db.view::<AnyZset>(key)?;
    let mut hashes = reply.array(call.args.len() - 2);
    for member in call.args.from(2) {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => hashes.bulk(&Place::of_score(score).geohash()),
            None => hashes.null(),
        }
    }
    Ok(hashes.done())
}

static GEOPOS: Command = Command {
    name: "GEOPOS",
    handler: Handler::Data(geopos),
    summary: "Gives the longitudes and latitudes of places.",
    ..GEOHASH
};

fn geopos(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let zset = call.db.view::<AnyZset>(key)?;
    let mut places = reply.array(call.args.len() - 2);
    for member in call.args.from(2) {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => write_place(&mut places, Place::of_score(score)),
            None => places.null_array(),
        }
    }
    Ok(places.done())
}

//! Streams that contradict themselves, and amplification.

use super::super::packed::ListpackWriter;
use super::super::writer::id_bytes;
use super::super::{DumpWriter, RdbError, RdbStream, RdbType, RdbValue, decode_dump, footer};
use super::*;

/// The elements of a node with the entries 5-1 {a=1} (deleted) and 5-2 {a=2}.
const NODE: &[i64] = &[1, 1, 1, 7, 0, 3, 0, 0, 11, 4, 2, 0, 1, 12, 4];

fn node(writer: &mut DumpWriter, id: RdbStreamId, elements: &[i64]) {
    let mut listpack = ListpackWriter::new();
    elements.iter().for_each(|&element| listpack.push_int(element));
    writer.blob(&id_bytes(id));
    writer.blob(&listpack.finish());
}

/// A stream of one node, its counters, and what follows.
fn decoded(elements: &[i64], counters: [u64; 8], rest: impl Fn(&mut DumpWriter)) -> Result<RdbStream, &'static str> {
    let mut writer = DumpWriter::new(RdbType::Stream);
    writer.length(1);
    node(&mut writer, (5, 1), elements);
    counters.iter().for_each(|&counter| writer.length(counter));
    rest(&mut writer);
    match decode_dump(&writer.finish()) {
        Ok(RdbValue::Stream(stream)) => Ok(stream),
        Err(RdbError::Format { what, .. }) => Err(what),
        other => panic!("{other:?}"),
    }
}

/// Length, last id, first id, highest deleted id, entries added.
const COUNTERS: [u64; 8] = [1, 5, 2, 5, 2, 5, 1, 2];

fn no_groups(writer: &mut DumpWriter) {
    writer.length(0);
}

#[test]
fn a_deleted_entry_is_not_there() {
    let stream = decoded(NODE, COUNTERS, no_groups).unwrap();
    assert_eq!(stream.entries, [((5, 2), vec![(b"7".to_vec().into(), b"12".to_vec())])]);
    assert_eq!(stream.meta.max_deleted_id, (5, 1));
}

#[test]
fn a_node_that_contradicts_itself_is_refused() {
    let cases = [
        (0, 2, MISCOUNTED),
        (1, 0, MISCOUNTED),
        (0, -1, "a negative number in a stream's node"),
        (2, 2, "the fields of a stream's node do not end"),
        (4, 1, "the fields of a stream's node do not end"),
        (5, 4, "unknown flags of an entry"),
        (5, -1, "unknown flags of an entry"),
        (6, 1, "the entries of a stream are out of order"),
        (9, 5, "a stream's node does not read backwards"),
        (12, 0, "the entries of a stream are out of order"),
        (12, -1, "the entries of a stream are out of order"),
        (14, 3, "a stream's node does not read backwards"),
    ];
    for (at, changed, what) in cases {
        let mut elements = NODE.to_vec();
        elements[at] = changed;
        let refusal = decoded(&elements, COUNTERS, no_groups).unwrap_err();
        assert_eq!(refusal, what, "{at} {changed}");
    }
    for cut in 0..NODE.len() {
        assert!(decoded(&NODE[..cut], COUNTERS, no_groups).is_err(), "{cut}");
    }
    let too_many = [1, 0, FIELDS_MAX as i64 + 1, 0];
    assert_eq!(decoded(&too_many, COUNTERS, no_groups), Err("an entry with too many fields"));
    let no_fields = [1, 0, 0, 0, 2, 0, 0, 3];
    assert_eq!(decoded(&no_fields, COUNTERS, no_groups), Err("an entry without fields"));
}

#[test]
fn counters_that_contradict_the_entries_are_refused() {
    let cases = [
        (0, 2, "a stream holds another number of entries than it says"),
        (2, 1, "a stream holds an entry after its last id"),
        (7, 0, "a stream holds more entries than were ever added"),
    ];
    for (at, changed, what) in cases {
        let mut counters = COUNTERS;
        counters[at] = changed;
        assert_eq!(decoded(NODE, counters, no_groups), Err(what));
    }
}

#[test]
fn nodes_ascend() {
    let mut writer = DumpWriter::new(RdbType::Stream);
    writer.length(2);
    let one = [1, 0, 1, 7, 0, 2, 0, 0, 11, 4];
    node(&mut writer, (5, 1), &one);
    node(&mut writer, (5, 1), &one);
    let refusal = decode_dump(&writer.finish()).unwrap_err();
    assert!(
        matches!(refusal, RdbError::Format { what: "the entries of a stream are out of order", .. }),
        "{refusal:?}"
    );
}

/// A group with one consumer; the group's pending ids, and the consumer's.
fn group(writer: &mut DumpWriter, name: &[u8], pending: &[u64], owned: &[&[u64]]) {
    writer.string(name);
    writer.id((5, 2));
    writer.length(u64::MAX);
    writer.length(pending.len() as u64);
    for &id in pending {
        writer.raw_id((5, id));
        writer.time_ms(Some(1000));
        writer.length(1);
    }
    writer.length(owned.len() as u64);
    for (index, ids) in owned.iter().enumerate() {
        writer.string(&[b'a' + (index % 2) as u8]);
        writer.time_ms(Some(1000));
        writer.length(ids.len() as u64);
        ids.iter().for_each(|&id| writer.raw_id((5, id)));
    }
}

#[test]
fn every_pending_entry_has_one_owner() {
    let decoded_group = |pending: &[u64], owned: &[&[u64]]| {
        decoded(NODE, COUNTERS, |writer| {
            writer.length(1);
            group(writer, b"g", pending, owned);
        })
    };
    let stream = decoded_group(&[2, 1], &[&[1], &[2]]).unwrap();
    let pel: Vec<_> = stream.meta.groups[0].pel.iter().map(|entry| (entry.id, entry.consumer)).collect();
    assert_eq!(pel, [((5, 1), 0), ((5, 2), 1)]);
    assert_eq!(decoded_group(&[1, 1], &[&[1]]), Err("a group has an entry pending twice"));
    assert_eq!(decoded_group(&[1], &[&[1], &[1]]), Err("an entry is pending for two"));
    assert_eq!(decoded_group(&[1], &[&[1, 1]]), Err("an entry is pending for two"));
    assert_eq!(decoded_group(&[1], &[&[1, 2]]), Err("an entry is pending for one only"));
    assert_eq!(decoded_group(&[1, 2], &[&[1]]), Err("a group has an entry pending for nobody"));
    assert_eq!(decoded_group(&[], &[&[], &[], &[]]), Err("a member stands twice"), "consumers of one name");
}

#[test]
fn groups_have_distinct_names() {
    let refusal = decoded(NODE, COUNTERS, |writer| {
        writer.length(2);
        group(writer, b"g", &[], &[]);
        group(writer, b"g", &[], &[]);
    });
    assert_eq!(refusal, Err("a member stands twice"));
}

/// Four bytes per entry, each standing for a name of 100 kB. A copy per entry would take 1 GB.
#[test]
fn a_long_name_is_kept_once_for_all_entries() {
    let count = 10_000;
    let mut listpack = ListpackWriter::new();
    [count, 0, 1].iter().for_each(|&number| listpack.push_int(number));
    listpack.push(&[b'n'; 100_000]);
    listpack.push_int(0);
    for sequence in 0..count {
        [2, 0, sequence, 1, 4].iter().for_each(|&number| listpack.push_int(number));
    }
    let mut writer = DumpWriter::new(RdbType::Stream);
    writer.length(1);
    writer.blob(&id_bytes((5, 1)));
    writer.blob(&listpack.finish());
    let last = count as u64;
    [last, 5, last, 5, 1, 0, 0, last, 0].iter().for_each(|&counter| writer.length(counter));
    let Ok(RdbValue::Stream(stream)) = decode_dump(&writer.finish()) else { panic!("a stream") };
    let name = &stream.entries[0].1[0].0;
    assert!(stream.entries.iter().all(|(_, fields)| Arc::ptr_eq(&fields[0].0, name)));
}

/// Version 1 does not say how far a group has read. At the ends of the stream it follows from the entries.
#[test]
fn the_count_of_entries_read_is_known_at_the_ends_of_an_old_stream() {
    let seen = Seen { live: 3, first_live: (1, 0), last: (3, 0) };
    let read = |ms| estimate_read(&seen, (4, 0), (ms, 0));
    assert_eq!([0, 1, 2, 3, 4, 5].map(read), [Some(0), Some(1), None, None, Some(3), None]);
    assert_eq!(estimate_read(&Seen::default(), (4, 0), (5, 0)), Some(0));
}

/// From version 4 on, the part after the groups is read to its end, or the payload is refused.
#[test]
fn idempotency_is_read_to_its_end() {
    let path = format!("{}/data/rdb/made-27-stream.bin", env!("CARGO_MANIFEST_DIR"));
    let payload = std::fs::read(path).unwrap();
    let body = &payload[..payload.len() - footer::FOOTER];
    for cut in 1..24 {
        let mut shorter = body[..body.len() - cut].to_vec();
        footer::append(&mut shorter, 14);
        assert!(decode_dump(&shorter).is_err(), "{cut}");
    }
}

//! CLUSTER on a server with and without `cluster-enabled`.

use super::super::testing::Runner;

fn cluster() -> Runner {
    Runner::with_config("cluster-enabled yes\n")
}

#[test]
fn without_cluster_enabled_everything_is_refused() {
    let mut t = Runner::new();
    for refused in [
        "READONLY",
        "READWRITE",
        "ASKING",
        "CLUSTER INFO",
        "CLUSTER HELP",
        "CLUSTER KEYSLOT a",
        "CLUSTER COUNTKEYSINSLOT x",
        "CLUSTER ADDSLOTS x",
        "CLUSTER BUMPEPOCH",
        "CLUSTER SETSLOT 1 STABLE",
        "CLUSTER MEET a 1",
        "CLUSTER SLOT-STATS SLOTSRANGE 0 1",
        "CLUSTER REPLICAS x",
    ] {
        assert_eq!(t.run(refused), "-ERR This instance has cluster support disabled ", "{refused}");
    }
    assert_eq!(t.run("MSET a 1 b 2"), "+OK ", "keys may be anywhere");
    assert!(t.run("INFO server cluster").contains("redis_mode:standalone "));
}

#[test]
fn the_node_owns_all_slots_at_the_address_that_the_client_has_reached() {
    let mut t = cluster();
    let id = t.run("CLUSTER MYID")[4..44].to_owned();
    assert_eq!(
        t.run("CLUSTER NODES").split_once(' ').expect("a line").1,
        format!("{id} 127.0.0.1:6379@16379 myself,master - 0 0 0 connected 0-16383\n ")
    );
    assert_eq!(t.run("CLUSTER SLOTS"), format!("*1 *3 :0 :16383 *4 $9 127.0.0.1 :6379 $40 {id} *0 "));
    t.run("CONFIG SET cluster-announce-ip 10.1.2.3 cluster-announce-port 7000 cluster-announce-bus-port 9");
    t.run("CONFIG SET cluster-announce-hostname my.host");
    assert_eq!(
        t.run("CLUSTER SLOTS"),
        format!("*1 *3 :0 :16383 *4 $8 10.1.2.3 :7000 $40 {id} *2 $8 hostname $7 my.host ")
    );
    assert!(t.run("CLUSTER NODES").contains(" 10.1.2.3:7000@9,my.host myself,master "));
    t.run("CONFIG SET cluster-preferred-endpoint-type hostname");
    assert_eq!(t.run("CLUSTER SLOTS"), format!("*1 *3 :0 :16383 *4 $7 my.host :7000 $40 {id} *2 $2 ip $8 10.1.2.3 "));
    t.run("CONFIG SET cluster-preferred-endpoint-type unknown-endpoint");
    t.run("HELLO 3");
    assert_eq!(
        t.run("CLUSTER SLOTS"),
        format!("*1 *3 :0 :16383 *4 _ :7000 $40 {id} %2 $2 ip $8 10.1.2.3 $8 hostname $7 my.host ")
    );
    assert_eq!(
        t.run("CLUSTER SHARDS"),
        format!(
            "*1 %2 $5 slots *2 :0 :16383 $5 nodes *1 %8 $2 id $40 {id} $4 port :7000 $2 ip $8 10.1.2.3 $8 endpoint $0  \
             $8 hostname $7 my.host $4 role $6 master $18 replication-offset :0 $6 health $6 online "
        )
    );
    let info = t.run("INFO server cluster");
    assert!(info.contains("redis_mode:cluster ") && info.contains("cluster_enabled:1 "), "{info}");
    assert!(t.run("HELLO").contains("$4 mode $7 cluster "));
}

#[test]
fn keys_of_a_call_must_be_in_one_slot() {
    let mut t = cluster();
    const CROSSSLOT: &str = "-CROSSSLOT Keys in request don't hash to the same slot ";
    for refused in ["MSET a 1 b 2", "DEL a b", "WATCH a b", "RENAME a b", "XREAD STREAMS a b 0 0", "SORT a STORE b"] {
        assert_eq!(t.run(refused), CROSSSLOT, "{refused}");
    }
    assert_eq!(t.run("MSET {x}a 1 {x}b 2"), "+OK ");
    assert_eq!(t.run("MGET {x}a {x}a y{x}"), "*3 $1 1 $1 1 $-1 ");
    assert_eq!(t.run("BITOP AND {x}c {x}a {x}b"), ":1 ");
    assert_eq!(t.run("BITOP AND c {x}a {x}b"), CROSSSLOT);
    assert_eq!(t.run("SSUBSCRIBE a b"), CROSSSLOT);
    assert_eq!(t.run("SPUBLISH a b"), ":0 ", "the message has no slot");
}

#[test]
fn the_keys_of_a_transaction_must_be_in_one_slot() {
    let mut t = cluster();
    const CROSSSLOT: &str = "-CROSSSLOT Keys in request don't hash to the same slot ";
    for queued in ["SET a 1", "SET b 1", "PING"] {
        t.run("MULTI");
        t.run("SET a 1");
        assert_eq!(t.run(queued), "+QUEUED ");
        assert_eq!(t.run("EXEC") == CROSSSLOT, queued == "SET b 1", "{queued}");
        assert_eq!(t.run("EXEC"), "-ERR EXEC without MULTI ");
    }
    assert_eq!(t.run("EXISTS b"), ":0 ");
    t.run("MULTI");
    assert_eq!(t.run("MSET a 1 b 1"), CROSSSLOT);
    assert_eq!(t.run("SET b 1"), "+QUEUED ");
    assert_eq!(t.run("EXEC"), "-EXECABORT Transaction discarded because of previous errors. ");
    t.run("MULTI");
    t.run("SET a 1");
    t.run("NOSUCH");
    t.run("SET b 1");
    assert_eq!(t.run("EXEC"), "-EXECABORT Transaction discarded because of previous errors. ");
}

#[test]
fn there_is_one_database() {
    let mut t = cluster();
    assert_eq!(t.run("SELECT 0"), "+OK ");
    assert_eq!(t.run("SELECT 1"), "-ERR SELECT is not allowed in cluster mode ");
    assert_eq!(t.run("SWAPDB 0 1"), "-ERR SWAPDB is not allowed in cluster mode ");
    assert_eq!(t.run("MOVE a 0"), "-ERR MOVE is not allowed in cluster mode ");
    assert_eq!(t.run("COPY a{x} {x} DB 1"), "-ERR DB index is out of range ");
    assert_eq!(t.run("COPY a{x} {x} DB 0"), ":0 ");
}

#[test]
fn slots_know_their_keys() {
    let mut t = cluster();
    assert_eq!(t.run("CLUSTER COUNTKEYSINSLOT 15495"), ":0 ");
    for key in ["a", "{a}1", "{a}2", "b", "c"] {
        t.run(&format!("SET {key} 1"));
    }
    t.run("SET {a}gone 1 PX 1");
    std::thread::sleep(std::time::Duration::from_millis(3));
    assert_eq!(t.run("CLUSTER KEYSLOT {a}1"), ":15495 ");
    assert_eq!(t.run("CLUSTER COUNTKEYSINSLOT 15495"), ":3 ");
    let keys = t.run("CLUSTER GETKEYSINSLOT 15495 10");
    assert!(keys.starts_with("*3 ") && ["$1 a ", "$4 {a}1 ", "$4 {a}2 "].iter().all(|key| keys.contains(key)));
    assert!(t.run("CLUSTER GETKEYSINSLOT 15495 2").starts_with("*2 "));
    assert_eq!(t.run("CLUSTER GETKEYSINSLOT 15495 0"), "*0 ");
    assert_eq!(
        t.run("CLUSTER SLOT-STATS SLOTSRANGE 15494 15495"),
        "*2 *2 :15494 *2 $9 key-count :0 *2 :15495 *2 $9 key-count :3 "
    );
    assert_eq!(t.run("CLUSTER SLOT-STATS ORDERBY key-count LIMIT 1"), "*1 *2 :15495 *2 $9 key-count :3 ");
    assert_eq!(t.run("CLUSTER SLOT-STATS ORDERBY key-count ASC LIMIT 1"), "*1 *2 :0 *2 $9 key-count :0 ");
    t.run("MULTI");
    t.run("SET {a}3 1");
    t.run("CLUSTER COUNTKEYSINSLOT 15495");
    t.run("GET a");
    assert_eq!(t.run("EXEC"), "*3 +OK :4 $1 1 ", "counted when the transaction is done, and told in its place");
}

#[test]
fn epochs_and_a_hard_reset_change_the_node() {
    let mut t = cluster();
    let id = t.run("CLUSTER MYID");
    assert_eq!(t.run("CLUSTER BUMPEPOCH"), "+BUMPED 1 ");
    assert_eq!(t.run("CLUSTER BUMPEPOCH"), "+STILL 1 ");
    assert_eq!(t.run("CLUSTER SET-CONFIG-EPOCH 5"), "-ERR Node config epoch is already non-zero ");
    assert_eq!(t.run("CLUSTER SAVECONFIG"), "+OK ");
    assert!(t.run("CLUSTER INFO").contains("cluster_current_epoch:1 cluster_my_epoch:1 "));
    t.run("SET k v");
    let refusal = "-ERR CLUSTER RESET can't be called with master nodes containing keys ";
    assert_eq!(t.run("CLUSTER RESET HARD"), refusal);
    t.run("DEL k");
    assert_eq!(t.run("CLUSTER RESET"), "+OK ");
    assert_eq!(t.run("CLUSTER MYID"), id);
    assert_eq!(t.run("CLUSTER RESET HARD"), "+OK ");
    assert_ne!(t.run("CLUSTER MYID"), id);
    assert_eq!(t.run("CLUSTER SET-CONFIG-EPOCH 5"), "+OK ");
    assert!(t.run("CLUSTER INFO").contains("cluster_current_epoch:5 cluster_my_epoch:5 "));
}

#[test]
fn what_slots_cost_is_counted_while_it_is_wanted() {
    let mut t = cluster();
    t.run("SET a 1");
    assert_eq!(t.run("CLUSTER SLOT-STATS ORDERBY cpu-usec"), "-ERR Unrecognized sort metric for ORDERBY. ");
    t.run("CONFIG SET cluster-slot-stats-enabled yes");
    let stats = |t: &mut Runner, slot: u16| {
        let reply = t.run(&format!("CLUSTER SLOT-STATS SLOTSRANGE {slot} {slot}"));
        let numbers: Vec<u64> = reply.split(' ').filter_map(|word| word.strip_prefix(':')?.parse().ok()).collect();
        (numbers[1], numbers[2], numbers[4], numbers[5])
    };
    assert_eq!(stats(&mut t, 15495), (1, 0, 0, 0));
    assert_eq!(t.run("GET a"), "$1 1 ");
    let (keys, _, read, written) = stats(&mut t, 15495);
    // `*2 $3 GET $1 a` and `$1 1`, with their line ends.
    assert_eq!((keys, read, written), (1, 20, 7));
    t.run("MULTI");
    t.run("GET a");
    t.run("GET a");
    t.run("EXEC");
    let (_, _, read, written) = stats(&mut t, 15495);
    assert_eq!((read, written), (60, 21));
    t.run("PING");
    t.run("GET b");
    assert_eq!(stats(&mut t, 3300).2, 20);
    let most = t.run("CLUSTER SLOT-STATS ORDERBY network-bytes-out LIMIT 1");
    assert!(most.starts_with("*1 *2 :15495 *10 $9 key-count :1 $8 cpu-usec :"), "{most}");
    assert_eq!(t.run("CONFIG RESETSTAT"), "+OK ");
    assert_eq!(stats(&mut t, 15495), (1, 0, 0, 0));
    t.run("CONFIG SET cluster-slot-stats-enabled no");
    t.run("GET a");
    assert_eq!(t.run("CLUSTER SLOT-STATS SLOTSRANGE 15495 15495"), "*1 *2 :15495 *2 $9 key-count :1 ");
}

#[test]
fn what_is_told_of_slots_is_chosen() {
    let mut t = cluster();
    t.run(&format!("SET a {}", "x".repeat(1000)));
    t.run("CONFIG SET cluster-slot-stats-enabled mem");
    let told = t.run("CLUSTER SLOT-STATS SLOTSRANGE 15495 15495");
    let bytes = told.strip_prefix("*1 *2 :15495 *4 $9 key-count :1 $12 memory-bytes :").expect("two metrics");
    assert!((1000..1200).contains(&bytes.trim().parse::<u64>().unwrap()), "{told}");
    assert!(t.run("CLUSTER SLOT-STATS ORDERBY memory-bytes LIMIT 1").starts_with("*1 *2 :15495 "));
    assert_eq!(t.run("CLUSTER SLOT-STATS ORDERBY cpu-usec"), "-ERR Unrecognized sort metric for ORDERBY. ");
    let get = "CONFIG GET cluster-slot-stats-enabled";
    for (set, shown) in [("'net cpu'", "cpu net"), ("'mem cpu net'", "yes"), ("yes", "yes"), ("no", "no")] {
        assert_eq!(t.run(&format!("CONFIG SET cluster-slot-stats-enabled {set}")), "+OK ");
        let reply = t.run(get);
        assert!(reply.ends_with(&format!(" {shown} ")), "{set}: {reply}");
    }
    assert!(t.run("CONFIG SET cluster-slot-stats-enabled disk").starts_with("-ERR CONFIG SET failed"));
}

#[test]
fn hot_keys_of_some_slots_are_counted() {
    let mut t = cluster();
    for (words, expected) in [
        ("SLOTS 0 1", "SLOTS count must be between 1 and 16384"),
        ("SLOTS 2 1", "not enough slot numbers provided"),
        ("SLOTS 1 16384", "Invalid or out of range slot"),
        ("SLOTS 2 7 7", "duplicate slot number"),
        ("SLOTS 1 7 SLOTS 1 8", "SLOTS parameter already specified"),
    ] {
        assert_eq!(t.run(&format!("HOTKEYS START METRICS 1 NET {words}")), format!("-ERR {expected} "), "{words}");
    }
    assert_eq!(t.run("HOTKEYS START METRICS 1 NET SLOTS 3 15496 15495 3 COUNT 5"), "+OK ");
    t.run("SET a 1");
    t.run("SET b 1");
    assert_eq!(t.run("HOTKEYS STOP"), "+OK ");
    let got = t.run("HOTKEYS GET");
    assert!(
        got.contains(" $14 selected-slots *2 *1 :3 *2 :15495 :15496 $30 all-commands-selected-slots-us :"),
        "{got}"
    );
    assert!(
        got.contains(" $37 net-bytes-all-commands-selected-slots :32 $32 net-bytes-all-commands-all-slots :64 "),
        "{got}"
    );
    assert!(got.ends_with(" $12 by-net-bytes *2 $1 a :32 "), "{got}");
}

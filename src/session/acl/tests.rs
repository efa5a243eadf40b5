//! Users and their commands on one connection after another.

use std::collections::BTreeSet;

use super::super::testing::Runner;
use crate::core::key_spec::{Begin, Find};
use crate::core::table::CommandEntry;
use crate::core::{Client, Handler, flags};
use crate::exec::testing::{with_args, words};

/// Runs lines that must be answered by OK.
fn ok(t: &mut Runner, lines: &[&str]) {
    for line in lines {
        assert_eq!(t.run(line), "+OK ", "{line}");
    }
}

/// Exchanges the connection for another one.
fn exchange(t: &mut Runner, other: &mut Client) {
    std::mem::swap(&mut t.client, other);
}

#[test]
fn a_user_is_refused_what_its_rules_do_not_allow() {
    let mut t = Runner::new();
    ok(&mut t, &["ACL SETUSER u on >p +get +set +subscribe +multi ~k* &c*", "AUTH u p", "SET k v"]);
    assert_eq!(t.run("ACL WHOAMI"), "-NOPERM User u has no permissions to run the 'acl|whoami' command ");
    assert_eq!(t.run("GET k"), "$1 v ");
    assert_eq!(t.run("GET x"), "-NOPERM No permissions to access a key ");
    assert_eq!(t.run("PING"), "-NOPERM User u has no permissions to run the 'ping' command ");
    assert_eq!(t.run("SUBSCRIBE c d"), "-NOPERM No permissions to access a channel ");
    assert_eq!(t.run("NOSUCH"), "-ERR unknown command 'NOSUCH', with args beginning with:  ");
    assert_eq!(t.run("RESET"), "+RESET ");
    assert_eq!(t.run("ACL WHOAMI"), "$7 default ");
    let stats = t.run("INFO stats errorstats");
    for line in ["acl_access_denied_cmd:2", "acl_access_denied_key:1", "acl_access_denied_channel:1"] {
        assert!(stats.contains(&format!("{line} ")), "{line} in {stats}");
    }
    assert!(stats.contains("errorstat_NOPERM:count=4"), "{stats}");
    let log = t.run("ACL LOG");
    for entry in ["channel $7 context $8 toplevel $6 object $1 d $8 username $1 u", "object $10 acl|whoami"] {
        assert!(log.contains(entry), "{entry} in {log}");
    }
    assert_eq!(t.run("ACL LOG RESET"), "+OK ");
    assert_eq!(t.run("ACL LOG"), "*0 ");
}

#[test]
fn every_read_of_a_pipeline_is_checked() {
    let mut t = Runner::new();
    ok(&mut t, &["SET a 1", "SET b 2", "ACL SETUSER u on nopass +get ~a", "AUTH u x"]);
    t.run_two(&words("GET a"), &words("GET b"));
    ok(&mut t, &["AUTH default x"]);
    assert!(t.run("INFO stats").contains("acl_access_denied_key:1 "));
}

#[test]
fn changed_rules_hold_from_the_next_command_on() {
    let mut t = Runner::new();
    ok(&mut t, &["SET k v", "ACL SETUSER u on nopass +@all ~*"]);
    let mut user = t.connection();
    exchange(&mut t, &mut user);
    ok(&mut t, &["AUTH u x"]);
    assert_eq!(t.run("GET k"), "$1 v ");
    exchange(&mut t, &mut user);
    ok(&mut t, &["ACL SETUSER u -get"]);
    exchange(&mut t, &mut user);
    assert_eq!(t.run("GET k"), "-NOPERM User u has no permissions to run the 'get' command ");
    ok(&mut t, &["ACL SETUSER u +get resetkeys ~x"]);
    assert_eq!(t.run("GET k"), "-NOPERM No permissions to access a key ", "it has changed itself");
    exchange(&mut t, &mut user);
    assert_eq!(t.run("ACL DELUSER u nobody"), ":1 ");
    ok(&mut t, &["ACL SETUSER u on nopass +@all ~*"]);
    exchange(&mut t, &mut user);
    assert_eq!(t.run("GET k"), "", "another user of that name is not this one");
    assert!(t.client.closing);
}

#[test]
fn a_user_that_deletes_itself_hears_of_it_and_closes() {
    let mut t = Runner::new();
    ok(&mut t, &["ACL SETUSER u on nopass +@all", "AUTH u x"]);
    assert_eq!(t.run("ACL DELUSER u"), ":1 ");
    assert!(t.client.closing);
}

#[test]
fn queued_commands_are_checked_when_they_are_queued_and_when_they_run() {
    let mut t = Runner::new();
    ok(&mut t, &["ACL SETUSER u on nopass +@all ~k", "AUTH u x", "MULTI"]);
    assert_eq!(t.run("SET k 1"), "+QUEUED ");
    assert_eq!(t.run("SET x 1"), "-NOPERM No permissions to access a key ");
    assert!(t.run("EXEC").starts_with("-EXECABORT "));
    ok(&mut t, &["MULTI"]);
    for line in ["SET k 1", "ACL SETUSER u -get", "GET k", "SET k 2"] {
        assert_eq!(t.run(line), "+QUEUED ");
    }
    let changed = "-NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. \
                   This command is no longer allowed for the following reason: no permission to execute the command \
                   or subcommand ";
    assert_eq!(t.run("EXEC"), format!("*4 +OK +OK {changed}+OK "));
    ok(&mut t, &["MULTI"]);
    assert_eq!(t.run("SET k 3"), "+QUEUED ");
    let mut user = t.connection();
    exchange(&mut t, &mut user);
    ok(&mut t, &["ACL SETUSER u -exec"]);
    exchange(&mut t, &mut user);
    assert_eq!(
        t.run("EXEC"),
        "-EXECABORT Transaction discarded because of: NOPERM User u has no permissions to run the 'exec' command "
    );
}

#[test]
fn scripts_may_do_what_their_user_may() {
    let mut t = Runner::new();
    ok(&mut t, &["SET x secret", "ACL SETUSER u on nopass +eval +get +set ~k*", "AUTH u x"]);
    assert_eq!(t.run("EVAL \"return redis.call('set', 'k1', ARGV[1])\" 0 v"), "+OK ", "an undeclared key");
    let refused = |reason: &str| format!("-ERR ACL failure in script: {reason}");
    let no_key = refused("No permissions to access a key");
    assert!(t.run("EVAL \"return redis.call('get', 'x')\" 0").starts_with(&no_key));
    assert!(t.run("EVAL \"return redis.call('get', KEYS[1])\" 1 x").starts_with("-NOPERM No permissions to access a"));
    let no_command = refused("User u has no permissions to run the 'del' command");
    assert!(t.run("EVAL \"return redis.call('del', 'k1')\" 0").starts_with(&no_command));
    let check = |t: &mut Runner, call: &str| t.run(&format!("EVAL \"return {{redis.acl_check_cmd({call})}}\" 0"));
    assert_eq!(check(&mut t, "'get', 'k1'"), "*1 :1 ");
    for call in ["'get', 'x'", "'del', 'k1'", "'config', 'get', 'port'"] {
        assert_eq!(check(&mut t, call), "*1 $-1 ", "{call}");
    }
    ok(&mut t, &["AUTH default x"]);
    assert!(t.run("ACL LOG").contains("context $3 lua"));
}

#[test]
fn sort_reads_other_keys_only_for_those_who_may_read_all() {
    let mut t = Runner::new();
    t.run("RPUSH k 2 1");
    let denied = |option: &str| format!("-ERR {option} option of SORT denied due to insufficient ACL permissions. ");
    for (rules, may) in [("~k", false), ("~k %W~*", false), ("~k %R~*", true), ("~*", true)] {
        ok(&mut t, &[&format!("ACL SETUSER u reset on nopass +sort +sort_ro {rules}"), "AUTH u x"]);
        for (options, option) in [("BY w*", "BY"), ("GET v*", "GET"), ("GET #", "GET")] {
            let reply = t.run(&format!("SORT_RO k {options}"));
            assert_eq!(reply == denied(option), !may, "{options} by {rules}: {reply}");
        }
        assert_eq!(t.run("SORT_RO k BY nosort"), "*2 $1 2 $1 1 ");
        let may_store = rules.contains("W~*") || rules == "~*";
        assert_eq!(t.run("SORT k STORE k2").starts_with("-NOPERM"), !may_store, "{rules}");
        ok(&mut t, &["AUTH default x"]);
    }
}

#[test]
fn lists_of_keys_hold_only_those_that_may_be_read() {
    let mut t = Runner::new();
    for number in 0..40 {
        t.run(&format!("SET hidden:{number} v"));
    }
    ok(&mut t, &["SET seen v", "ACL SETUSER u on nopass +@all %R~seen %W~hidden:*", "AUTH u x"]);
    assert_eq!(t.run("KEYS *"), "*1 $4 seen ");
    assert_eq!(t.run("SCAN 0 COUNT 1000"), "*2 $1 0 *1 $4 seen ");
    assert_eq!(t.run("RANDOMKEY"), "$4 seen ");
    assert_eq!(t.run("EVAL \"return redis.call('keys', 'h*')\" 0"), "*0 ");
    assert_eq!(t.run("DBSIZE"), ":41 ");
    ok(&mut t, &["ACL SETUSER u %R~*"]);
    assert!(t.run("KEYS *").starts_with("*41 "));
    ok(&mut t, &["ACL SETUSER u resetkeys"]);
    assert_eq!(t.run("RANDOMKEY"), "$-1 ");
}

#[test]
fn databases_can_be_forbidden() {
    let mut t = Runner::new();
    ok(&mut t, &["ACL SETUSER u on nopass +@all allkeys db=0,2", "AUTH u x", "SET k v"]);
    let denied = "-NOPERM No permissions to access database ";
    for line in ["SELECT 1", "MOVE k 1", "COPY k l DB 1", "SWAPDB 0 1", "FLUSHALL"] {
        assert_eq!(t.run(line), denied, "{line}");
    }
    assert!(
        t.run("EVAL \"return redis.call('select', 1)\" 0").contains("ACL failure in script: No permissions to access")
    );
    ok(&mut t, &["SELECT 2", "SWAPDB 0 2"]);
    assert_eq!(t.run("GET k"), "$1 v ");
    ok(&mut t, &["ACL SETUSER u db=1"]);
    for line in ["GET k", "DBSIZE", "KEYS *", "FLUSHDB", "SELECT 2"] {
        assert_eq!(t.run(line), denied, "{line}");
    }
    assert_eq!(t.run("PING"), "+PONG ");
    ok(&mut t, &["SELECT 1"]);
    assert!(t.run("INFO stats").contains("acl_access_denied_db:11 "), "{}", t.run("INFO stats"));
    assert!(t.run("ACL GETUSER u").contains("$9 databases $4 db=1 "));
    assert!(!t.run("ACL GETUSER default").contains("databases"));
}

#[test]
fn users_are_described_as_in_redis() {
    let mut t = Runner::new();
    ok(&mut t, &["ACL SETUSER u on >p +get ~a %R~b &c (+set ~d)"]);
    let digest = "148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940";
    assert_eq!(
        t.run("ACL GETUSER u"),
        format!(
            "*12 $5 flags *2 $2 on $16 sanitize-payload $9 passwords *1 $64 {digest} $8 commands $10 -@all +get \
             $4 keys $7 ~a %R~b $8 channels $2 &c $9 selectors *1 *6 $8 commands $10 -@all +set $4 keys $2 ~d \
             $8 channels $0  "
        )
    );
    let list = t.run("ACL LIST");
    let line = format!(
        "user u on sanitize-payload #{digest} ~a %R~b resetchannels &c -@all +get (~d resetchannels -@all +set)"
    );
    assert!(list.contains(&line) && list.contains("user default on nopass sanitize-payload ~* &* +@all"), "{list}");
    assert_eq!(t.run("ACL USERS"), "*2 $7 default $1 u ");
    assert_eq!(t.run("ACL GETUSER nobody"), "$-1 ");
    let digests = [t.run("ACL DIGEST"), t.run("ACL DIGEST")];
    assert!(digests[0] == digests[1] && digests[0].starts_with("$64 "));
    ok(&mut t, &["ACL SETUSER u off"]);
    assert_ne!(t.run("ACL DIGEST"), digests[0]);
    assert_eq!(t.run("ACL DELUSER default"), "-ERR The 'default' user cannot be removed ");
    assert_eq!(t.run("ACL SETUSER \"a b\""), "-ERR Usernames can't contain spaces or null characters ");
    assert!(t.run("ACL LOAD").starts_with("-ERR This Redis instance is not configured to use an ACL file."));
}

#[test]
fn dryrun_tells_what_would_be_refused() {
    let mut t = Runner::new();
    ok(&mut t, &["ACL SETUSER u +get +config|get +debug|sleep ~a &c"]);
    for line in ["GET a", "CONFIG GET x", "DEBUG SLEEP 0", "AUTH x"] {
        ok(&mut t, &[&format!("ACL DRYRUN u {line}")]);
    }
    for (line, reply) in [
        ("u GET b", "$45 User u has no permissions to access the 'b' key "),
        ("u SET a 1", "$49 User u has no permissions to run the 'set' command "),
        ("u DEBUG OBJECT a", "$51 User u has no permissions to run the 'debug' command "),
        ("u CONFIG SET a b", "$56 User u has no permissions to run the 'config|set' command "),
        ("u GET", "-ERR wrong number of arguments for 'get' command "),
        ("u nope", "-ERR Command 'nope' not found "),
        ("nobody GET a", "-ERR User 'nobody' not found "),
    ] {
        let said = t.run(&format!("ACL DRYRUN {line}"));
        let text = |reply: &str| reply.split_once(' ').map(|(_, text)| text.to_owned());
        assert_eq!((text(&said), said.as_bytes()[0]), (text(reply), reply.as_bytes()[0]), "{line}");
    }
}

#[test]
fn roles_are_kept_apart_from_users() {
    let mut t = Runner::new();
    ok(
        &mut t,
        &["ACL SETROLE reader ~app:* +@read (+info)", "ACL SETUSER alice on nopass role=reader", "AUTH alice x"],
    );
    assert_eq!(t.run("GET app:1"), "$-1 ");
    assert_eq!(t.run("GET x"), "-NOPERM No permissions to access a key ");
    assert!(t.run("INFO server").starts_with('$'));
    ok(&mut t, &["AUTH default x"]);
    assert_eq!(
        t.run("ACL GETROLE reader"),
        "*12 $8 commands $12 -@all +@read $4 keys $6 ~app:* $8 channels $0  $9 databases $6 alldbs $9 selectors *1 *8 \
         $8 commands $11 -@all +info $4 keys $0  $8 channels $0  $9 databases $6 alldbs $5 users *1 $5 alice "
    );
    assert_eq!(t.run("ACL ROLES"), "*1 $6 reader ");
    assert!(t.run("ACL LIST").contains("role reader ~app:* resetchannels -@all +@read (resetchannels -@all +info)"));
    assert!(t.run("ACL GETUSER alice").contains("$5 roles *1 $6 reader "));
    assert!(t.run("ACL DELROLE reader").starts_with("-ERR The role 'reader' is assigned to users"));
    ok(&mut t, &["ACL SETUSER alice resetroles"]);
    assert_eq!(t.run("ACL DELROLE reader"), ":1 ");
    assert_eq!(t.run("ACL GETROLE reader"), "$-1 ");
    assert_eq!(t.run("ACL SETROLE r on"), "-ERR Error in ACL SETUSER modifier 'on': The rule is not valid for a role ");
}

#[test]
fn configured_users_are_there_from_the_start() {
    let mut t = Runner::with_config("user alice on >p +get ~k (+set ~j)\nuser default off\nrequirepass x\n");
    assert_eq!(t.run("PING"), "-NOAUTH Authentication required. ");
    ok(&mut t, &["AUTH alice p", "SET j 1"]);
    assert_eq!(t.run("SET k 1"), "-NOPERM No permissions to access a key ");
    assert!(t.run("AUTH x").starts_with("-WRONGPASS"));
}

/// Arguments that fit the key specifications of a command, with the key `k` wherever one is wanted; several forms.
fn calls(entry: &CommandEntry) -> Vec<Vec<Vec<u8>>> {
    let names: Vec<Vec<u8>> = entry.full_name.split('|').map(|name| name.as_bytes().to_vec()).collect();
    let least = entry.command.arity.number().unsigned_abs() as usize;
    let mut all = Vec::new();
    for len in least..least + 3 {
        let mut args = names.clone();
        args.resize(len.max(names.len()), b"k".to_vec());
        for spec in entry.command.keys.0 {
            if let Begin::Keyword(word, _) = spec.begin {
                args.push(word.into());
                args.extend([b"k".to_vec(), b"k".to_vec()]);
            }
            if let (Begin::Index(first), Find::Keynum { at, .. }) = (spec.begin, spec.find)
                && first + at < args.len()
            {
                args[first + at] = b"1".to_vec();
            }
        }
        // Behind a container stands a subcommand.
        let names_another = matches!(entry.command.handler, Handler::ContainerOr(..)) && len > names.len();
        if entry.command.arity.accepts(args.len()) && !names_another {
            all.push(args);
        }
    }
    if entry.full_name == "migrate" {
        // A key before KEYS would be one too many.
        all = vec![[&b"MIGRATE"[..], b"h", b"1", b"k", b"0", b"1", b"COPY"].map(<[u8]>::to_vec).to_vec()];
    }
    if entry.full_name == "exec" {
        // Its keys stand behind words.
        all.push([&b"EXEC"[..], b"XX", b"k"].map(<[u8]>::to_vec).to_vec());
    }
    all
}

/// The key specification decides: a walk over all commands with users who may do nothing, use one pattern of keys, only
/// read, only write.
#[test]
fn no_command_passes_a_user_who_may_not_use_its_keys() {
    let mut t = Runner::new();
    ok(&mut t, &["ACL SETUSER nothing on nopass", "ACL SETUSER other +@all &* ~other", "ACL SETUSER one +@all &* ~k"]);
    ok(&mut t, &["ACL SETUSER reader +@all &* %R~k", "ACL SETUSER writer +@all &* %W~k"]);
    let server = std::sync::Arc::clone(&t.server);
    let entries = server.table.entries().iter().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands()));
    let (mut seen, mut with_keys) = (0, BTreeSet::new());
    for entry in entries.filter(|entry| !matches!(entry.command.handler, Handler::Container(_))) {
        for args in calls(entry) {
            seen += 1;
            let line = String::from_utf8_lossy(&args.join(&b' ')).into_owned();
            let uses = with_args(&args, |args| entry.command.keys.uses(args)).unwrap_or_default();
            let (reads, writes) =
                uses.iter().fold((false, false), |(r, w), (_, how)| (r || how.reads, w || how.writes));
            let may = |t: &mut Runner, user: &str| t.run(&format!("ACL DRYRUN {user} {line}")) == "+OK ";
            let name = &entry.full_name;
            assert_eq!(may(&mut t, "nothing"), entry.command.flags.has(flags::NO_AUTH), "nothing: {line}");
            assert_eq!(may(&mut t, "other"), uses.is_empty(), "another key: {line}");
            assert!(may(&mut t, "one"), "the key: {line}");
            assert_eq!(may(&mut t, "reader"), !writes, "reads: {line}");
            assert_eq!(may(&mut t, "writer"), !reads, "writes: {line}");
            if !uses.is_empty() {
                with_keys.insert(name.clone());
            }
        }
    }
    let declared = server.table.entries().iter().flat_map(|e| std::iter::once(e).chain(e.subcommands()));
    let missed: Vec<_> = declared.filter(|e| e.command.keys.is_any() && !with_keys.contains(&e.full_name)).collect();
    assert!(
        missed.is_empty(),
        "no call with keys was made of {:?}",
        missed.iter().map(|e| &e.full_name).collect::<Vec<_>>()
    );
    let writes = |e: &&CommandEntry| e.command.flags.has(flags::WRITE) && e.command.keys.is_any();
    let says_so = |e: &&CommandEntry| e.command.keys.0.iter().any(|spec| spec.flags.key_use().writes);
    let declared = server.table.entries().iter().flat_map(|e| std::iter::once(e).chain(e.subcommands()));
    let silent: Vec<_> = declared.filter(writes).filter(|e| !says_so(e)).map(|e| &e.full_name).collect();
    // As in Redis: these change no content, but its form, its protection, or what a group knows of it.
    assert_eq!(
        silent,
        ["bless|clear", "bless|set", "pfdebug", "xreadgroup"],
        "these write, and say of no key that they do"
    );
    assert!(seen > 600 && with_keys.len() > 150, "{seen} {}", with_keys.len());
    // Not only by DRYRUN: who may do nothing is refused.
    ok(&mut t, &["AUTH nothing x"]);
    let entries = server.table.entries().iter().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands()));
    for entry in entries.filter(|entry| !entry.command.flags.has(flags::NO_AUTH)) {
        for args in calls(entry).iter().take(1) {
            let reply = t.run(&String::from_utf8_lossy(&args.join(&b' ')));
            let refused = reply.contains("NOPERM ") || reply.starts_with("-ERR");
            assert!(refused, "{}: {reply}", entry.full_name);
        }
    }
}

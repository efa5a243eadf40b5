//! Rules without commands: a catalogue of a few names.

use super::catalogue::{Catalogue, Known};
use super::file::merge_selectors;
use super::selector::KeyUse;
use super::users::Users;
use super::{Denied, Need, Wish};

const READ: u32 = 1;
const DANGEROUS: u32 = 2;

fn catalogue() -> Catalogue {
    let known = |(index, (name, categories)): (usize, &(&str, u32))| Known {
        name: (*name).to_owned(),
        index,
        categories: *categories,
        subcommands: if *name == "config" { vec![3, 4] } else { Vec::new() },
        is_sub: name.contains('|'),
    };
    let names =
        [("get", READ), ("set", 0), ("config", 0), ("config|get", DANGEROUS), ("config|set", DANGEROUS), ("select", 0)];
    Catalogue::new(
        names.iter().enumerate().map(known).collect(),
        &[("read", READ), ("dangerous", DANGEROUS)],
        names.len(),
    )
}

fn users() -> Users {
    Users::new(catalogue())
}

fn set(users: &Users, name: &str, rules: &str) -> Result<(), String> {
    let rules: Vec<&[u8]> = rules.split(' ').map(str::as_bytes).collect();
    users.set(name.as_bytes(), &rules).map_err(|mistake| String::from_utf8_lossy(&mistake.wire()).into_owned())
}

/// The rules of a user behind its flags.
fn rules(users: &Users, name: &str) -> String {
    let rules = users.get(name.as_bytes()).expect("a user").rules();
    String::from_utf8(rules).expect("ASCII").replace("sanitize-payload ", "")
}

fn may(users: &Users, name: &str, command: usize, key: Option<(&str, bool, bool)>) -> Result<(), Denied> {
    let mut wish = Wish { command: Some(command), first_argument: Some(b"1"), ..Wish::default() };
    if let Some((key, reads, writes)) = key {
        wish.keys.push(Need { place: 1, name: key.as_bytes(), how: KeyUse { reads, writes } });
    }
    users.get(name.as_bytes()).expect("a user").check(&wish)
}

#[test]
fn rules_are_kept_as_redis_keeps_them() {
    let users = users();
    let steps = [
        ("+get", "off resetchannels -@all +get"),
        ("on", "on resetchannels -@all +get"),
        ("+@READ -get", "on resetchannels -@all +@read -get"),
        ("+config|get +config|set", "on resetchannels -@all +@read -get +config|get +config|set"),
        ("-config", "on resetchannels -@all +@read -get -config"),
        ("+config|GET", "on resetchannels -@all +@read -get -config +config|get"),
        ("+select|0 +select|1 +Select|0", "on resetchannels -@all +@read -get -config +config|get +select|1 +select|0"),
        ("+select", "on resetchannels -@all +@read -get -config +config|get +select"),
        ("allcommands", "on resetchannels +@all"),
        ("~a %R~b %W~b %w~c &x &y", "on ~a ~b %W~c resetchannels &x &y +@all"),
        ("allkeys allchannels", "on ~* &* +@all"),
        ("db=3,1,3", "on ~* &* db=1,3 +@all"),
        ("resetdbs", "on ~* &* resetdbs +@all"),
        (
            "reset (~x +get) ( +set )",
            "off resetchannels -@all (~x resetchannels -@all +get) (resetchannels -@all +set)",
        ),
        ("clearselectors nopass", "off nopass resetchannels -@all"),
    ];
    for (given, expected) in steps {
        set(&users, "u", given).unwrap_or_else(|error| panic!("{given}: {error}"));
        assert_eq!(rules(&users, "u"), expected, "after {given}");
    }
}

#[test]
fn a_mistake_is_told_and_changes_nothing() {
    let users = users();
    set(&users, "u", "on ~a +get").expect("valid rules");
    let before = rules(&users, "u");
    let wrong = |rule: &str, text: &str| format!("Error in ACL SETUSER modifier '{rule}': {text}");
    let unknown = "Unknown command or category name in ACL";
    let mistakes = [
        ("+nope", wrong("+nope", unknown)),
        ("+@nope", wrong("+@nope", unknown)),
        ("+config|nope", wrong("+config|nope", unknown)),
        ("-select|0", wrong("-select|0", unknown)),
        ("+config|get|x", wrong("+config|get|x", "Allowing first-arg of a subcommand is not supported")),
        ("+select|", wrong("+select|", "Syntax error")),
        ("%~x", wrong("%~x", "Syntax error")),
        ("%RR~x", wrong("%RR~x", "Syntax error")),
        ("foo", wrong("foo", "Syntax error")),
        ("(~a))", wrong("(~a))", "Syntax error")),
        ("(~\"a\\\"\")", wrong("(~\"a\\\"\")", "Syntax error")),
        ("(on)", wrong("(on)", "Syntax error")),
        ("db=", wrong("db=", "Syntax error")),
        ("db=-1", wrong("db=-1", "The provided database ID is out of range")),
        ("<nobody", wrong("<nobody", "The password you are trying to remove from the user does not exist")),
        ("role=nope", wrong("role=nope", "The role does not exist")),
        ("(+get ~x", "Unmatched parenthesis in acl selector starting at '(+get'.".to_owned()),
    ];
    for (rule, expected) in mistakes {
        assert_eq!(set(&users, "u", &format!("-get {rule}")), Err(expected));
        assert_eq!(rules(&users, "u"), before, "after {rule}");
    }
    assert!(set(&users, "v", "on foo").is_err() && users.get(b"v").is_none());
    assert_eq!(merge_selectors(&[b"a", b"(b", b"c)", b"d"]), Ok(vec![b"a".to_vec(), b"(b c)".to_vec(), b"d".to_vec()]));
}

#[test]
fn one_selector_must_allow_all_of_a_call() {
    let users = users();
    set(&users, "u", "+get ~a* (+set %W~b* %R~c) (+select|1)").expect("valid rules");
    let (get, put, select) = (0, 1, 5);
    assert_eq!(may(&users, "u", get, Some(("a1", true, false))), Ok(()));
    assert_eq!(may(&users, "u", get, Some(("b1", false, false))), Err(Denied::Key(1)));
    assert_eq!(may(&users, "u", put, Some(("b1", false, true))), Ok(()));
    assert_eq!(may(&users, "u", put, Some(("b1", true, true))), Err(Denied::Key(1)));
    assert_eq!(may(&users, "u", put, Some(("c", true, false))), Ok(()));
    assert_eq!(may(&users, "u", put, Some(("a1", false, true))), Err(Denied::Key(1)));
    assert_eq!(may(&users, "u", select, None), Ok(()), "with this first argument");
    assert_eq!(may(&users, "u", 2, None), Err(Denied::Command(0)));
    set(&users, "u", "reset +@all -@dangerous ~*").expect("valid rules");
    assert_eq!((may(&users, "u", 2, None), may(&users, "u", 3, None)), (Ok(()), Err(Denied::Command(0))));
}

#[test]
fn passwords_are_added_removed_and_accepted() {
    let users = users();
    set(&users, "u", "on >one >two").expect("valid rules");
    let accepts = |word: &str| users.authenticate(b"u", word.as_bytes()).is_some();
    assert!(accepts("one") && accepts("two") && !accepts("three") && !accepts(""));
    set(&users, "u", "<one").expect("a known password");
    assert!(!accepts("one") && accepts("two"));
    set(&users, "u", "off").expect("a valid rule");
    assert!(!accepts("two"), "a disabled user lets nobody in");
    set(&users, "u", "on nopass").expect("valid rules");
    assert!(accepts("anything") && users.authenticate(b"nobody", b"").is_none());
    set(&users, "u", "resetpass").expect("a valid rule");
    assert!(!accepts("anything"));
    assert!(users.authenticate(b"default", b"x").is_some());
    assert!(users.follow_requirepass(b"secret") && !users.follow_requirepass(b"secret"));
    assert!(users.authenticate(b"default", b"x").is_none() && users.authenticate(b"default", b"secret").is_some());
    set(&users, "default", ">other").expect("a valid rule");
    assert!(!users.follow_requirepass(b"secret") && users.authenticate(b"default", b"other").is_some());
}

#[test]
fn the_deleted_user_does_not_become_the_new_one_of_its_name() {
    let users = users();
    set(&users, "u", "on").expect("a valid rule");
    let old = users.get(b"u").expect("a user");
    set(&users, "u", "+get").expect("a valid rule");
    assert!(users.renewed(&old).is_some_and(|now| now.rules() != old.rules()), "a change keeps it");
    assert_eq!(users.delete([&b"u"[..], b"default", b"nobody"].into_iter()), 1);
    assert!(users.renewed(&old).is_none());
    set(&users, "u", "on").expect("a valid rule");
    assert!(users.renewed(&old).is_none());
}

#[test]
fn roles_reach_all_of_their_users_at_once() {
    let users = users();
    users.set_role(b"reader", &[b"~app:*", b"+@read", b"(+select)"]).expect("valid rules");
    set(&users, "u", "on role=reader +set ~tmp").expect("valid rules");
    set(&users, "v", "role:reader").expect("the other spelling");
    assert_eq!(rules(&users, "u"), "on role=reader ~tmp resetchannels -@all +set");
    assert_eq!(may(&users, "u", 0, Some(("app:1", true, false))), Ok(()));
    assert_eq!(may(&users, "u", 0, Some(("tmp", true, false))), Err(Denied::Key(1)));
    users.set_role(b"reader", &[b"-get"]).expect("a valid rule");
    assert_eq!(may(&users, "u", 0, Some(("app:1", true, false))), Err(Denied::Command(0)));
    let (_, held_by) = users.role(b"reader").expect("a role");
    assert_eq!(held_by, [b"u"[..].into(), b"v"[..].into()]);
    for rule in ["on", ">x", "nopass", "role=reader", "resetroles", "reset"] {
        assert!(users.set_role(b"reader", &[b"+get", rule.as_bytes()]).is_err(), "{rule}");
    }
    assert_eq!(users.delete_roles([&b"reader"[..]].into_iter()), Err(b"reader".to_vec()));
    set(&users, "u", "resetroles").expect("a valid rule");
    set(&users, "v", "reset").expect("a valid rule");
    assert_eq!(users.delete_roles([&b"reader"[..], b"none"].into_iter()), Ok(1));
}

#[test]
fn a_file_is_loaded_whole_or_not_at_all() {
    let users = users();
    set(&users, "old", "on").expect("a valid rule");
    let before = users.lines();
    let text = b"user a on >p ~x* +get\n\nuser b bad\nuser a off\nrole r on\nfoo\nuser c (+get\nuser d +nope +nada\n";
    let error = users.load("f", text).expect_err("mistakes");
    assert_eq!(
        error,
        "f:6 should start with user keyword followed by the username. f:5: The rule is not valid for a role. f:3: \
         Syntax error. WARNING: Duplicate user 'a' found on line 4. f:7: Unmatched parenthesis in selector \
         definition.f:8: Error in applying operation '+nope': Unknown command or category name in ACL. f:8: Error in \
         applying operation '+nada': Unknown command or category name in ACL. WARNING: ACL errors detected, no change \
         to the previously active ACL rules was performed"
    );
    assert_eq!(users.lines(), before);
    users.load("f", b"user a role=r on\r\nrole r ~x* +get (~y +set)\n").expect("valid lines");
    let lines = users.lines();
    assert_eq!(lines[0], b"role r ~x* resetchannels -@all +get (~y resetchannels -@all +set)");
    assert_eq!(lines[1], b"user a on sanitize-payload role=r resetchannels -@all");
    assert_eq!(lines[2], b"user default on nopass sanitize-payload ~* &* +@all", "nobody spoke of it");
    let digest = users.digest();
    users.load("f", &lines.join(&b'\n')).expect("what is written can be read");
    assert_eq!((users.lines(), users.digest()), (lines, digest));
    assert!(users.get(b"old").is_none());
}

#[test]
fn refusals_alike_are_counted_together() {
    use super::log::{Context, Reason, Refusal, RefusalLog};
    let mut log = RefusalLog::default();
    let mut note = |object: &str, at: i64, len_max: usize| {
        let (reason, context, object) = (Reason::Key, Context::Multi, object.as_bytes());
        log.note(Refusal { reason, context, object, username: b"u", client: b"c".to_vec() }, at, len_max);
        log.newest(10)
            .iter()
            .map(|e| (String::from_utf8_lossy(&e.object).into_owned(), e.count, e.id))
            .collect::<Vec<_>>()
    };
    note("k", 0, 9);
    note("l", 1, 9);
    assert_eq!(note("k", 2, 9), [("k".into(), 2, 0), ("l".into(), 1, 1)]);
    assert_eq!(note("k", 60_003, 9)[0], ("k".into(), 1, 2), "a minute later");
    assert_eq!(note("m", 60_004, 2).len(), 2);
    assert!(note("n", 60_005, 0).is_empty());
}

//! Tests of the commands for places.

use crate::exec::testing::Runner;
use crate::resp::Resp;

fn sicily() -> Runner {
    let mut t = Runner::new();
    assert_eq!(t.run("GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania"), ":2 ");
    t
}

#[test]
fn what_is_added_and_stored_is_logged_as_scores() {
    let mut t = sicily();
    assert_eq!(t.take_logged(), ["ZADD g 3479099956230698 Palermo 3479447370796909 Catania"]);
    assert_eq!(t.run("GEOADD g CH XX 13.361389 38.2 Palermo 1 1 none"), ":1 ");
    assert!(t.take_logged()[0].starts_with("ZADD g 3479"));
    for line in ["GEOADD g NX 1 1 Palermo", "GEOADD none XX 1 1 a", "GEORADIUS g 15 37 1 km STORE none"] {
        t.run(line);
        assert_eq!(t.take_logged(), [""; 0], "{line}");
    }
    assert_eq!(t.run("GEORADIUS g 15 37 200 km STORE d"), ":2 ");
    assert!(t.take_logged()[0].starts_with("STATE d "));
    assert_eq!(t.run("GEOSEARCHSTORE d g FROMLONLAT 1 1 BYRADIUS 1 m"), ":0 ");
    assert_eq!(t.take_logged(), ["DEL d"]);
}

#[test]
fn replies_are_those_of_redis() {
    let mut t = sicily();
    assert_eq!(t.run("GEODIST g Palermo Catania"), "$11 166274.1516 ");
    assert_eq!(t.run("GEOPOS g Palermo none"), "*2 *2 $20 13.36138933897018433 $20 38.11555639549629859 *-1 ");
    let all = "GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC COUNT 1 WITHDIST WITHHASH WITHCOORD";
    let coordinates = ["15.08726745843887329", "37.50266842333162032"];
    let [longitude, latitude] = coordinates;
    let start = "*1 *4 $7 Catania $7 56.4413 :3479447370796909 *2 ";
    assert_eq!(t.run(all), format!("{start}$20 {longitude} $20 {latitude} "));
    t.resp = Resp::V3;
    assert_eq!(t.run(all), format!("{start},{longitude} ,{latitude} "));
    t.assert_replay_equals_live();
}

//! Places on earth as scores of a sorted set: 52 bits of longitude and latitude, interleaved.
//!
//! ```text
//!   score   lon₀ lat₀ lon₁ lat₁ … lon₂₅ lat₂₅        halves, from the largest on
//!   cell    the first 2 × step bits                   a box; its scores are neighbours
//! ```
//!
//! Longitudes are within ±180 and latitudes within ±85.05112878 degrees, as in web maps. Distances are those on a
//! sphere. The formulas keep Redis' order of operations, because results must be equal to the last digit.

use std::f64::consts::PI;

/// The largest longitude.
pub const LONGITUDE_MAX: f64 = 180.0;
/// The largest latitude.
pub const LATITUDE_MAX: f64 = 85.051_128_78;
/// How many halvings of each coordinate a score holds.
pub const STEP_MAX: u32 = 26;

const EARTH_RADIUS_METERS: f64 = 6_372_797.560_856;
const MERCATOR_MAX: f64 = 20_037_726.37;
const DEGREE: f64 = PI / 180.0;
const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";

/// A place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Degrees to the east.
    pub longitude: f64,
    /// Degrees to the north.
    pub latitude: f64,
}

/// Spreads the low 32 bits of a number, with a zero above each.
fn spread(number: u64) -> u64 {
    let mut bits = number & 0xFFFF_FFFF;
    for (shift, mask) in [
        (16, 0x0000_FFFF_0000_FFFF),
        (8, 0x00FF_00FF_00FF_00FF),
        (4, 0x0F0F_0F0F_0F0F_0F0F),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// The opposite of [`spread`].
fn gather(bits: u64) -> u64 {
    let mut bits = bits & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0F0F_0F0F_0F0F_0F0F),
        (4, 0x00FF_00FF_00FF_00FF),
        (8, 0x0000_FFFF_0000_FFFF),
        (16, 0x0000_0000_FFFF_FFFF),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits
}

/// The bits of a place at this step, with latitudes up to `latitude_max`.
fn encode(place: Place, latitude_max: f64, step: u32) -> u64 {
    let scale = (1_u64 << step) as f64;
    let latitude = (place.latitude + latitude_max) / (latitude_max + latitude_max) * scale;
    let longitude = (place.longitude + LONGITUDE_MAX) / (LONGITUDE_MAX + LONGITUDE_MAX) * scale;
    spread(latitude as u32 as u64) | spread(longitude as u32 as u64) << 1
}

impl Place {
    /// Whether it is within the bounds.
    pub fn is_valid(self) -> bool {
        (-LONGITUDE_MAX..=LONGITUDE_MAX).contains(&self.longitude)
            && (-LATITUDE_MAX..=LATITUDE_MAX).contains(&self.latitude)
    }

    /// Its score, an integer.
    pub fn score(self) -> u64 {
        encode(self, LATITUDE_MAX, STEP_MAX)
    }

    /// The center of the cell of a score.
    pub fn of_score(score: f64) -> Place {
        let area = Cell { bits: score as u64, step: STEP_MAX }.area();
        let longitude = (area.west + area.east) / 2.0;
        let latitude = (area.south + area.north) / 2.0;
        Place {
            longitude: longitude.clamp(-LONGITUDE_MAX, LONGITUDE_MAX),
            latitude: latitude.clamp(-LATITUDE_MAX, LATITUDE_MAX),
        }
    }

    /// The standard geohash: 11 characters, of which the last carries no information.
    pub fn geohash(self) -> [u8; 11] {
        let bits = encode(self, 90.0, STEP_MAX);
        std::array::from_fn(|at| match at {
            10 => ALPHABET[0],
            at => ALPHABET[(bits >> (52 - (at + 1) * 5) & 31) as usize],
        })
    }

    /// The distance to another place, in meters.
    pub fn distance(self, other: Place) -> f64 {
        let (longitude, other_longitude) = (self.longitude * DEGREE, other.longitude * DEGREE);
        let v = ((other_longitude - longitude) / 2.0).sin();
        if v == 0.0 {
            return latitude_distance(self.latitude, other.latitude);
        }
        let (latitude, other_latitude) = (self.latitude * DEGREE, other.latitude * DEGREE);
        let u = ((other_latitude - latitude) / 2.0).sin();
        let a = u * u + latitude.cos() * other_latitude.cos() * v * v;
        2.0 * EARTH_RADIUS_METERS * a.sqrt().asin()
    }
}

fn latitude_distance(one: f64, other: f64) -> f64 {
    EARTH_RADIUS_METERS * (other * DEGREE - one * DEGREE).abs()
}

/// The shape that a search covers, in meters; a polygon in degrees.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// All within a distance.
    Circle {
        /// The distance.
        radius: f64,
    },
    /// All within a box.
    Box {
        /// From west to east.
        width: f64,
        /// From south to north.
        height: f64,
    },
    /// All within a polygon, on a map whose coordinates are degrees. It does not cross the date line.
    Polygon {
        /// Its corners, three or more, in the order in which lines join them.
        corners: Vec<Place>,
    },
}

/// The place in the middle of others: where the mean of the directions to them, from the center of the earth, points.
pub fn middle(places: &[Place]) -> Place {
    let (mut x, mut y, mut z) = (0.0, 0.0, 0.0);
    for place in places {
        let (longitude, latitude) = (place.longitude * DEGREE, place.latitude * DEGREE);
        x += latitude.cos() * longitude.cos();
        y += latitude.cos() * longitude.sin();
        z += latitude.sin();
    }
    let count = places.len() as f64;
    let (x, y, z) = (x / count, y / count, z / count);
    Place { longitude: y.atan2(x) / DEGREE, latitude: z.atan2((x * x + y * y).sqrt()) / DEGREE }
}

/// Whether a place is within a polygon: whether a ray to the east leaves it an odd number of times.
fn is_within(corners: &[Place], place: Place) -> bool {
    let mut before = corners.len() - 1;
    let mut inside = false;
    for (at, corner) in corners.iter().enumerate() {
        let other = corners[before];
        if (corner.latitude > place.latitude) != (other.latitude > place.latitude) {
            let slope = (other.longitude - corner.longitude) / (other.latitude - corner.latitude);
            inside ^= place.longitude < slope * (place.latitude - corner.latitude) + corner.longitude;
        }
        before = at;
    }
    inside
}

impl Shape {
    /// The distance between the center and a place, if the shape covers the place.
    pub fn distance_within(&self, center: Place, place: Place) -> Option<f64> {
        match *self {
            Shape::Polygon { ref corners } => is_within(corners, place).then(|| center.distance(place)),
            Shape::Circle { radius } => Some(center.distance(place)).filter(|distance| *distance <= radius),
            Shape::Box { width, height } => {
                let beside = Place { latitude: place.latitude, ..center };
                let outside = latitude_distance(place.latitude, center.latitude) > height / 2.0
                    || place.distance(beside) > width / 2.0;
                if outside { None } else { Some(center.distance(place)) }
            }
        }
    }

    /// The ranges of scores that contain every place which the shape covers around a center. Each goes from its first
    /// score to the one behind its last. First come the nine cells in which Redis looks, in its order; behind them what
    /// these leave out: near the poles, where cells are narrow, and at the date line.
    pub fn score_ranges(&self, center: Place) -> Vec<(u64, u64)> {
        let bounds = self.bounds(center);
        let mut step = step_for(self.reach(center), center.latitude);
        let mut cell = Cell { bits: encode(center, LATITUDE_MAX, step), step };
        if step > 1 && !cell.reaches(&bounds) {
            step -= 1;
            cell = Cell { bits: encode(center, LATITUDE_MAX, step), step };
        }
        let area = cell.area();
        let mut ranges: Vec<(u64, u64)> = Vec::with_capacity(9);
        for (east, north) in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)] {
            let useless = step >= 2
                && ((north < 0 && area.south < bounds.south)
                    || (north > 0 && area.north > bounds.north)
                    || (east < 0 && area.west < bounds.west)
                    || (east > 0 && area.east > bounds.east));
            // With few large cells, the neighbours on both sides are the same.
            let range = cell.neighbour(east, north).score_range();
            if !useless && ranges.last() != Some(&range) {
                ranges.push(range);
            }
        }
        let Some(covered) = self.covered(center) else { return ranges };
        let Some(cells) = covered.cells(step) else { return vec![(0, 1 << 54)] };
        for cell in cells {
            let range = cell.score_range();
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
        ranges
    }

    /// How far the shape reaches from the center, in meters.
    fn reach(&self, center: Place) -> f64 {
        match self {
            Shape::Circle { radius } => *radius,
            Shape::Box { width, height } => ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt(),
            Shape::Polygon { corners } => corners.iter().map(|corner| center.distance(*corner)).fold(0.0, f64::max),
        }
    }

    /// Its bounding box as Redis calculates it, in degrees.
    fn bounds(&self, center: Place) -> Area {
        let (width, height) = match self {
            Shape::Circle { radius } => (*radius, *radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
            Shape::Polygon { corners } => return Area::of_corners(corners),
        };
        let up = height / EARTH_RADIUS_METERS / DEGREE;
        // The parallel nearer to the pole is the shorter one.
        let far = if center.latitude < 0.0 { center.latitude - up } else { center.latitude + up };
        let aside = width / EARTH_RADIUS_METERS / (far * DEGREE).cos() / DEGREE;
        Area {
            west: center.longitude - aside,
            east: center.longitude + aside,
            south: center.latitude - up,
            north: center.latitude + up,
        }
    }

    /// A box in degrees that holds all places of the shape, whatever the pole and the date line do. Its east may be
    /// beyond 180, and its west below -180. `None` if the shape covers nothing.
    fn covered(&self, center: Place) -> Option<Area> {
        // More than what rounding takes away.
        const MARGIN: f64 = 1e-6;
        let (up, aside) = match *self {
            Shape::Circle { radius } => {
                let angle = radius / EARTH_RADIUS_METERS;
                let up = angle / DEGREE;
                let holds_pole = center.latitude.abs() + up >= 90.0;
                let sine = if holds_pole { 1.0 } else { angle.sin() / (center.latitude * DEGREE).cos() };
                (up, sine.min(1.0).asin() / DEGREE * if holds_pole { 2.0 } else { 1.0 })
            }
            Shape::Box { width, height } => {
                let up = height / 2.0 / EARTH_RADIUS_METERS / DEGREE;
                let farthest = (center.latitude.abs() + up).min(LATITUDE_MAX) * DEGREE;
                let half = (width / 4.0 / EARTH_RADIUS_METERS).min(PI / 2.0);
                (up, 2.0 * (half.sin() / farthest.cos()).min(1.0).asin() / DEGREE)
            }
            Shape::Polygon { ref corners } => return Some(Area::of_corners(corners).wider(MARGIN)),
        };
        if up.is_nan() || aside.is_nan() || up < 0.0 || aside < 0.0 {
            return None;
        }
        let area = Area {
            west: center.longitude - aside.min(180.0),
            east: center.longitude + aside.min(180.0),
            south: center.latitude - up.min(180.0),
            north: center.latitude + up.min(180.0),
        };
        Some(area.wider(MARGIN))
    }
}

/// The finest step at which nine cells cover a circle.
fn step_for(mut radius: f64, latitude: f64) -> u32 {
    if radius == 0.0 {
        return STEP_MAX;
    }
    let mut step = 1;
    while radius < MERCATOR_MAX && step < 64 {
        radius *= 2.0;
        step += 1;
    }
    step -= 2;
    // Cells get narrow towards the poles.
    if latitude.abs() > 66.0 {
        step -= 1 + i32::from(latitude.abs() > 80.0);
    }
    step.clamp(1, STEP_MAX as i32) as u32
}

/// A box in degrees.
struct Area {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

/// The most cells that are searched beside each other. With more, all places are looked at.
const CELLS_MAX: u64 = 1024;

impl Area {
    fn of_corners(corners: &[Place]) -> Area {
        let longitudes = || corners.iter().map(|corner| corner.longitude);
        let latitudes = || corners.iter().map(|corner| corner.latitude);
        Area {
            west: longitudes().fold(f64::INFINITY, f64::min),
            east: longitudes().fold(f64::NEG_INFINITY, f64::max),
            south: latitudes().fold(f64::INFINITY, f64::min),
            north: latitudes().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    fn wider(self, by: f64) -> Area {
        Area { west: self.west - by, east: self.east + by, south: self.south - by, north: self.north + by }
    }

    /// The cells of this step that share a place with it; `None` if they are too many.
    fn cells(&self, step: u32) -> Option<Vec<Cell>> {
        let count = 1_i64 << step;
        let index = |degrees: f64, max: f64| ((degrees + max) / (max + max) * count as f64).floor() as i64;
        let (south, north) = (index(self.south, LATITUDE_MAX).max(0), index(self.north, LATITUDE_MAX).min(count));
        let (west, east) = (index(self.west, LONGITUDE_MAX), index(self.east, LONGITUDE_MAX));
        let columns = (east.saturating_sub(west).saturating_add(1)).min(count);
        let rows = (north - south + 1).max(0);
        if (rows as u64).saturating_mul(columns as u64 + 1) > CELLS_MAX {
            return None;
        }
        let mut longitudes: Vec<u64> = (west..west + columns).map(|column| column.rem_euclid(count) as u64).collect();
        if west <= 0 || east >= count {
            // The largest coordinate has a cell of its own, behind all others.
            longitudes.push(count as u64);
        }
        let cells = (south..=north).flat_map(|row| {
            longitudes.iter().map(move |column| Cell { bits: spread(row as u64) | spread(*column) << 1, step })
        });
        Some(cells.collect())
    }
}

#[derive(Clone, Copy)]
struct Cell {
    bits: u64,
    step: u32,
}

impl Cell {
    fn area(self) -> Area {
        let scale = (1_u64 << self.step) as f64;
        let bound = |max: f64, index: u64| -max + index as f64 / scale * (max + max);
        let (latitude, longitude) = (gather(self.bits), gather(self.bits >> 1));
        Area {
            west: bound(LONGITUDE_MAX, longitude),
            east: bound(LONGITUDE_MAX, longitude + 1),
            south: bound(LATITUDE_MAX, latitude),
            north: bound(LATITUDE_MAX, latitude + 1),
        }
    }

    /// The cell this many cells to the east and north, wrapping around the earth. The largest coordinates give a cell
    /// that is one too far and so has no places.
    fn neighbour(self, east: i64, north: i64) -> Cell {
        let moved = |index: u64, by: i64| match by {
            0 => index,
            by => index.wrapping_add_signed(by) & ((1_u64 << self.step) - 1),
        };
        let (longitude, latitude) = (moved(gather(self.bits >> 1), east), moved(gather(self.bits), north));
        Cell { bits: spread(latitude) | spread(longitude) << 1, step: self.step }
    }

    /// Whether it and its neighbours reach the bounds.
    fn reaches(self, bounds: &Area) -> bool {
        let around = |east, north| self.neighbour(east, north).area();
        around(0, 1).north >= bounds.north
            && around(0, -1).south <= bounds.south
            && around(1, 0).east >= bounds.east
            && around(-1, 0).west <= bounds.west
    }

    fn score_range(self) -> (u64, u64) {
        let shift = 2 * (STEP_MAX - self.step);
        (self.bits << shift, (self.bits + 1) << shift)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PALERMO: Place = Place { longitude: 13.361389, latitude: 38.115556 };
    const CATANIA: Place = Place { longitude: 15.087269, latitude: 37.502669 };

    #[test]
    fn scores_geohashes_and_distances_are_those_of_redis() {
        assert_eq!((PALERMO.score(), CATANIA.score()), (3_479_099_956_230_698, 3_479_447_370_796_909));
        let palermo = Place::of_score(3_479_099_956_230_698.0);
        let catania = Place::of_score(3_479_447_370_796_909.0);
        assert_eq!(&palermo.geohash(), b"sqc8b49rny0");
        assert_eq!(&catania.geohash(), b"sqdtr74hyu0");
        assert_eq!(format!("{:.4}", palermo.distance(catania)), "166274.1516");
        assert_eq!(palermo.distance(palermo), 0.0);
    }

    fn place() -> impl Strategy<Value = Place> {
        (-180.0..=180.0, -85.05..=85.05).prop_map(|(longitude, latitude)| Place { longitude, latitude })
    }

    /// Any place, often at a pole or at the date line.
    fn any_place() -> impl Strategy<Value = Place> {
        let longitude =
            prop_oneof![-180.0..=180.0_f64, 179.9..=180.0_f64, -180.0..=-179.9_f64, Just(180.0), Just(-180.0)];
        let pole = LATITUDE_MAX;
        let latitude = prop_oneof![-pole..=pole, 80.0..=pole, -pole..=-80.0_f64, Just(pole), Just(-pole)];
        (longitude, latitude).prop_map(|(longitude, latitude)| Place { longitude, latitude })
    }

    #[test]
    fn a_place_beyond_the_pole_is_in_the_ranges() {
        let member = Place::of_score(Place { longitude: 119.38, latitude: -82.15 }.score() as f64);
        let center = Place { longitude: 76.97, latitude: -84.68 };
        let shape = Shape::Circle { radius: 602_204.0 };
        assert!(shape.distance_within(center, member).is_some_and(|distance| distance < 591_000.0));
        let score = member.score();
        assert!(shape.score_ranges(center).iter().any(|(from, to)| (*from..*to).contains(&score)));
    }

    #[test]
    fn the_middle_of_places_is_that_of_their_directions() {
        let place = |longitude, latitude| Place { longitude, latitude };
        let found = middle(&[place(10.0, 36.0), place(20.0, 36.0), place(20.0, 45.0), place(10.0, 45.0)]);
        assert!((found.longitude - 15.0).abs() < 1e-6 && (found.latitude - 40.607_909).abs() < 1e-6, "{found:?}");
    }

    proptest! {
        #[test]
        fn a_score_leads_back_to_its_place(place in place()) {
            let back = Place::of_score(place.score() as f64);
            prop_assert!(place.distance(back) < 1.0);
            prop_assert_eq!(back.score(), place.score());
        }

        #[test]
        fn what_a_shape_covers_is_in_its_ranges(
            center in any_place(), others in prop::collection::vec(any_place(), 40), reach in 2.0..7.4_f64,
            tall in 0.01..100.0_f64, corners in prop::collection::vec(any_place(), 3..6)
        ) {
            let reach = 10_f64.powf(reach);
            let near = |place: Place| {
                // A third of the places far away, a third within reach, a third in between.
                let scale = [1.0, reach / 1e7, (reach / 1e7).sqrt()][place.longitude.abs() as usize % 3].min(1.0);
                let longitude = center.longitude + (place.longitude - center.longitude) * scale;
                let latitude = center.latitude + (place.latitude - center.latitude) * scale;
                Place::of_score(Place { longitude, latitude }.score() as f64)
            };
            let shapes = [
                (center, Shape::Circle { radius: reach }),
                (center, Shape::Box { width: reach, height: reach * tall }),
                (center, Shape::Box { width: reach * tall, height: reach }),
                (middle(&corners), Shape::Polygon { corners }),
            ];
            for place in others.iter().map(|place| near(*place)).chain(others.iter().copied()) {
                let place = Place::of_score(place.score() as f64);
                for (center, shape) in &shapes {
                    let score = place.score();
                    let ranges = shape.score_ranges(*center);
                    let found = ranges.iter().filter(|(from, to)| (*from..*to).contains(&score)).count();
                    prop_assert!(found <= 1, "{place:?} is found {found} times in {shape:?} around {center:?}");
                    let is_covered = shape.distance_within(*center, place).is_some();
                    prop_assert!(found == 1 || !is_covered, "{place:?} is not found in {shape:?} around {center:?}");
                }
            }
        }

        #[test]
        fn any_numbers_end_in_peace(score in any::<f64>(), reach in any::<f64>(), center in place()) {
            let place = Place::of_score(score);
            let shape = Shape::Box { width: reach, height: reach };
            shape.score_ranges(center);
            Shape::Circle { radius: reach }.score_ranges(place);
            shape.distance_within(center, place);
        }
    }
}

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

/// The shape that a search covers, in meters.
#[derive(Clone, Copy, Debug, PartialEq)]
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
}

impl Shape {
    /// The distance between the center and a place, if the shape covers the place.
    pub fn distance_within(self, center: Place, place: Place) -> Option<f64> {
        match self {
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
    /// score to the one behind its last.
    pub fn score_ranges(self, center: Place) -> Vec<(u64, u64)> {
        let bounds = self.bounds(center);
        let reach = match self {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt(),
        };
        let mut step = step_for(reach, center.latitude);
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
        ranges
    }

    /// Its bounding box, in degrees.
    fn bounds(self, center: Place) -> Area {
        let (width, height) = match self {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
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

    proptest! {
        #[test]
        fn a_score_leads_back_to_its_place(place in place()) {
            let back = Place::of_score(place.score() as f64);
            prop_assert!(place.distance(back) < 1.0);
            prop_assert_eq!(back.score(), place.score());
        }

        #[test]
        fn what_a_shape_covers_is_in_its_ranges(
            center in place(), other in place(), reach in 0.0..3e6_f64, tall in 0.0..3e6_f64
        ) {
            // Stays away from the poles and the date line, where nine cells are known to be too few.
            prop_assume!(center.latitude.abs() < 55.0 && center.longitude.abs() < 130.0);
            let near = Place {
                longitude: center.longitude + other.longitude / 40.0,
                latitude: center.latitude + other.latitude / 40.0,
            };
            let near = Place::of_score(near.score() as f64);
            for shape in [Shape::Circle { radius: reach }, Shape::Box { width: reach, height: tall }] {
                if shape.distance_within(center, near).is_some() {
                    let score = near.score();
                    let ranges = shape.score_ranges(center);
                    prop_assert!(ranges.iter().any(|(from, to)| (*from..*to).contains(&score)));
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

//! Graphs of letters: a column for each sample, with its label below, written downwards.

/// The rows of the columns.
const ROWS: usize = 4;
/// What the top of a column looks like, from low to high within its row;
const TOPS: [char; 3] = ['_', 'o', '#'];
/// and what stands below it.
const BELOW: char = '|';

/// Draws samples, each with its label, in lines of at most this many columns.
pub(super) fn draw(samples: &[(u64, String)], columns: usize) -> String {
    let values = || samples.iter().map(|(value, _)| *value);
    let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
    let parts: Vec<String> = samples.chunks(columns.max(1)).map(|part| draw_part(part, low, high)).collect();
    parts.join("\n")
}

fn draw_part(samples: &[(u64, String)], low: u64, high: u64) -> String {
    let steps = ROWS * TOPS.len();
    let step = |value: u64| {
        let share = (value - low) as f64 / (high - low).max(1) as f64;
        ((share * steps as f64) as usize).min(steps - 1)
    };
    let mut text = String::new();
    for row in (0..ROWS).rev() {
        for (value, _) in samples {
            let above = step(*value).checked_sub(row * TOPS.len());
            text.push(above.map_or(' ', |above| TOPS.get(above).copied().unwrap_or(BELOW)));
        }
        text.push('\n');
    }
    let label_rows = samples.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0);
    if label_rows > 0 {
        text.extend(std::iter::repeat_n(' ', samples.len()));
        text.push('\n');
    }
    for row in 0..label_rows {
        text.extend(samples.iter().map(|(_, label)| label.chars().nth(row).unwrap_or(' ')));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_rise_with_their_values() {
        let samples: Vec<(u64, String)> = (0..12).map(|value| (value, format!("{value}"))).collect();
        let expected =
            "         _o#\n      _o#|||\n   _o#||||||\n_o#|||||||||\n            \n012345678911\n          01\n";
        assert_eq!(draw(&samples, 80), expected);
        assert_eq!(draw(&samples, 6).lines().count(), 14);
        assert_eq!(draw(&[], 80), "");
        assert_eq!(draw(&[(5, String::new())], 80), " \n \n \n_\n");
    }
}

//! Moments as people type them.

use tribunal_events::Timestamp;

/// Unix seconds, a day (`2026-03-01`: its first moment in UTC) or RFC 3339; nothing where the text is none of these.
pub fn parse(text: &str) -> Option<Timestamp> {
    if !text.is_empty() && text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Timestamp::from_s);
    }
    let (date, time) = match text.split_at_checked(10)? {
        (date, "") => (date, None),
        (date, rest) => (date, Some(rest.strip_prefix(['T', 't', ' '])?)),
    };
    let days = days(date)?;
    let us = time.map_or(Some(0), time_us)?;
    u64::try_from(days * 86_400_000_000 + us).ok().map(Timestamp::from_us)
}

/// The day of a moment in UTC, `2026-03-01`.
pub fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

/// A unix second in UTC, `2026-03-01T09:00:00Z`.
pub fn second(unix_s: u64) -> String {
    Timestamp::from_s(unix_s).to_string().replace(".000000", "")
}

/// How long something takes, in its two largest units: `6 d 23 h`, `12 min 3 s`.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (1.., _, _) => format!("{days} d {hours} h"),
        (0, 1.., _) => format!("{hours} h {minutes} min"),
        (0, 0, 1..) => format!("{minutes} min {} s", seconds % 60),
        _ => format!("{seconds} s"),
    }
}

/// Days since 1970-01-01 (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || !(1..=length).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// Microseconds since midnight UTC of `10:00:00.5+02:00`; may be of another day.
fn time_us(text: &str) -> Option<i64> {
    let (time, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let (time, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let sign = if offset.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = offset.strip_prefix(['+', '-'])?.split_once(':')?;
            let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
            (hours < 24 && minutes < 60).then_some(())?;
            (time, sign * (hours * 60 + minutes))
        }
    };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.split(':');
    let (hours, minutes, seconds) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let digits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let us: i64 = digits.then(|| format!("{fraction:0<6}")[..6].parse().ok())??;
    Some(((hours * 60 + minutes - offset) * 60 + seconds) * 1_000_000 + us)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_written() {
        for (text, expected) in [
            ("0", "1970-01-01T00:00:00.000000Z"),
            ("1772355600", "2026-03-01T09:00:00.000000Z"),
            ("2026-03-01", "2026-03-01T00:00:00.000000Z"),
            ("2024-02-29T23:59:59.5Z", "2024-02-29T23:59:59.500000Z"),
            ("2026-03-01T00:30:00+02:00", "2026-02-28T22:30:00.000000Z"),
            ("2026-03-01T00:30:00.123456789-00:30", "2026-03-01T01:00:00.123456Z"),
        ] {
            assert_eq!(parse(text).map(|at| at.to_string()).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["", "-1", "2026-3-1", "2026-02-29", "2026-13-01", "2026-03-01T25:00:00Z", "2026-03-01T10:00:00", "x"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(day(Timestamp::from_s(1_772_355_600)), "2026-03-01");
        assert_eq!(second(1_772_355_600), "2026-03-01T09:00:00Z");
    }

    #[test]
    fn durations_have_their_two_largest_units() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3_599, "59 min 59 s"),
            (7_380, "2 h 3 min"),
            (86_399, "23 h 59 min"),
            (7 * 86_400 - 1, "6 d 23 h"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}

//! PNG images within a distance.
//!
//! Both images become RGBA of 8 or 16 bits and must have the same sides and depth. Sums are integers and the rest is IEEE
//! arithmetic in a fixed order, so every machine finds the same number. SSIM: Wang, Bovik, Sheikh and Simoncelli 2004 with
//! a flat window of 8 × 8 pixels at every place, mean over places and channels; K1 = 0.01, K2 = 0.03.

use crate::{comparator::Comparison, numeric::too_large};

/// Pixels of an image at most.
const PIXELS_MAX: u64 = 16 * 1024 * 1024;
const WINDOW: usize = 8;

/// How alike two images must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Least {
    /// Peak signal-to-noise ratio in dB, over all channels.
    PsnrDb(f64),
    /// Structural similarity, at most 1.
    Ssim(f64),
}

/// How alike two images are that can be compared: SSIM, at most 1.
pub(crate) fn similarity(own: &[u8], claimed: &[u8]) -> Option<f64> {
    let (a, b) = (decode(own).ok()?, decode(claimed).ok()?);
    ((a.width, a.height, a.peak) == (b.width, b.height, b.peak)).then(|| ssim(&a, &b))
}

struct Image {
    width: usize,
    height: usize,
    peak: u32,
    /// Four planes, one after the other.
    planes: Vec<Vec<u16>>,
}

/// Why bytes are no image here.
enum NoImage {
    Unread(String),
    /// More pixels than are read; our limit, not a fault of the image.
    TooLarge(String),
}

pub(crate) fn compare(least: Least, own: &[u8], claimed: &[u8]) -> Comparison {
    if let Some(found) = too_large(own, claimed) {
        return found;
    }
    let differ = Comparison::Differ;
    let (a, b) = match (decode(own), decode(claimed)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(NoImage::TooLarge(problem)), Err(NoImage::TooLarge(_))) => {
            return Comparison::Unusable(format!("both images are too large to be compared: {problem}"));
        }
        (Err(NoImage::Unread(problem) | NoImage::TooLarge(problem)), _) => {
            return differ(format!("what is expected is no PNG: {problem}"));
        }
        (_, Err(NoImage::Unread(problem) | NoImage::TooLarge(problem))) => {
            return differ(format!("what is claimed is no PNG: {problem}"));
        }
    };
    if (a.width, a.height) != (b.width, b.height) {
        let sides = |image: &Image| format!("{} × {} pixels", image.width, image.height);
        return differ(format!("expected {}, claimed {}", sides(&a), sides(&b)));
    }
    if a.peak != b.peak {
        let bits = |image: &Image| if image.peak == 255 { 8 } else { 16 };
        return differ(format!("expected {} bits a channel, claimed {}", bits(&a), bits(&b)));
    }
    let (alike, found) = match least {
        Least::PsnrDb(least) => {
            let (squares, samples) = squared_error(&a, &b);
            let peak = f64::from(a.peak);
            // PSNR >= least, without a logarithm: MSE <= peak² / 10^(least / 10). The logarithm is for people.
            let mse = squares as f64 / samples as f64;
            let db = 10.0 * (peak * peak / mse).log10();
            let alike = squares == 0 || mse <= peak * peak / ten_to(least / 10.0);
            (alike, format!("PSNR is {db:.2} dB, at least {least} is needed"))
        }
        Least::Ssim(least) => {
            let found = ssim(&a, &b);
            (found >= least, format!("SSIM is {found:.6}, at least {least} is needed"))
        }
    };
    if alike { Comparison::Agree } else { differ(format!("{found}{}", first_pixel(&a, &b))) }
}

/// The first pixel that differs, in the order of rows.
fn first_pixel(a: &Image, b: &Image) -> String {
    let pixel = |image: &Image, at: usize| image.planes.iter().map(|plane| plane[at]).collect::<Vec<_>>();
    let found = (0..a.width * a.height).find(|at| a.planes.iter().zip(&b.planes).any(|(a, b)| a[*at] != b[*at]));
    found.map_or_else(String::new, |at| {
        let (row, column) = (at / a.width, at % a.width);
        format!("; row {row}, column {column}: expected {:?}, claimed {:?}", pixel(a, at), pixel(b, at))
    })
}

fn decode(bytes: &[u8]) -> Result<Image, NoImage> {
    let unread = |error: png::DecodingError| match error {
        png::DecodingError::LimitsExceeded => NoImage::TooLarge(error.to_string()),
        _ => NoImage::Unread(error.to_string()),
    };
    let mut decoder = png::Decoder::new_with_limits(std::io::Cursor::new(bytes), png::Limits { bytes: 1 << 28 });
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::ALPHA);
    let mut reader = decoder.read_info().map_err(unread)?;
    let (width, height) = reader.info().size();
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(NoImage::TooLarge(format!("{width} × {height} pixels are more than {PIXELS_MAX}")));
    }
    let size = reader.output_buffer_size().ok_or_else(|| NoImage::TooLarge("it is too large".into()))?;
    let mut buffer = vec![0; size];
    let frame = reader.next_frame(&mut buffer).map_err(unread)?;
    let grey = match frame.color_type {
        png::ColorType::GrayscaleAlpha => true,
        png::ColorType::Rgba => false,
        other => return Err(NoImage::Unread(format!("colours of type {other:?}"))),
    };
    let (wide, channels) = (frame.bit_depth == png::BitDepth::Sixteen, if grey { 2 } else { 4 });
    let step = channels * if wide { 2 } else { 1 };
    let pixels = &buffer[..frame.buffer_size()];
    let plane = |channel: usize| {
        let sample = |pixel: &[u8]| {
            if wide {
                u16::from_be_bytes([pixel[channel * 2], pixel[channel * 2 + 1]])
            } else {
                u16::from(pixel[channel])
            }
        };
        pixels.chunks_exact(step).map(sample).collect::<Vec<_>>()
    };
    let order: [usize; 4] = if grey { [0, 0, 0, 1] } else { [0, 1, 2, 3] };
    Ok(Image {
        width: width as usize,
        height: height as usize,
        peak: if wide { 65_535 } else { 255 },
        planes: order.map(plane).into(),
    })
}

fn squared_error(a: &Image, b: &Image) -> (u64, u64) {
    let square = |(a, b): (&u16, &u16)| u64::from(a.abs_diff(*b)).pow(2);
    let planes = a.planes.iter().zip(&b.planes);
    let squares = planes.map(|(a, b)| a.iter().zip(b).map(square).sum::<u64>()).sum();
    (squares, (a.width * a.height * 4) as u64)
}

/// 10^x for x >= 0 by squaring and exactly rounded square roots; infinite where it is beyond all doubles.
fn ten_to(x: f64) -> f64 {
    if x >= 309.0 {
        return f64::INFINITY;
    }
    let (mut power, mut rest) = (1.0, x);
    while rest >= 1.0 {
        power *= 10.0;
        rest -= 1.0;
    }
    let mut root: f64 = 10.0;
    for _ in 0..53 {
        root = root.sqrt();
        rest *= 2.0;
        if rest >= 1.0 {
            power *= root;
            rest -= 1.0;
        }
    }
    power
}

fn ssim(a: &Image, b: &Image) -> f64 {
    let window = WINDOW.min(a.width).min(a.height);
    let count = (window * window) as f64;
    let peak = f64::from(a.peak);
    let (c1, c2) = ((0.01 * peak) * (0.01 * peak), (0.03 * peak) * (0.03 * peak));
    let (mut total, mut places) = (0.0, 0u64);
    for (a_plane, b_plane) in a.planes.iter().zip(&b.planes) {
        // Sums over the window's columns, moved down row by row: a, b, a², b², ab.
        let mut columns = vec![[0u64; 5]; a.width];
        for row in 0..a.height {
            for (x, column) in columns.iter_mut().enumerate() {
                add(column, a_plane[row * a.width + x], b_plane[row * a.width + x], true);
                if row >= window {
                    let old = (row - window) * a.width + x;
                    add(column, a_plane[old], b_plane[old], false);
                }
            }
            if row + 1 < window {
                continue;
            }
            let mut sums = [0u64; 5];
            for x in 0..a.width {
                for (sum, column) in sums.iter_mut().zip(&columns[x]) {
                    *sum += column;
                }
                if x >= window {
                    for (sum, column) in sums.iter_mut().zip(&columns[x - window]) {
                        *sum -= column;
                    }
                }
                if x + 1 < window {
                    continue;
                }
                let [a_sum, b_sum, a_squares, b_squares, products] = sums.map(|sum| sum as f64);
                let (a_mean, b_mean) = (a_sum / count, b_sum / count);
                let a_variance = a_squares / count - a_mean * a_mean;
                let b_variance = b_squares / count - b_mean * b_mean;
                let covariance = products / count - a_mean * b_mean;
                let likeness = (2.0 * (a_mean * b_mean) + c1) * (2.0 * covariance + c2);
                let scale = (a_mean * a_mean + b_mean * b_mean + c1) * (a_variance + b_variance + c2);
                total += likeness / scale;
                places += 1;
            }
        }
    }
    if places == 0 { 1.0 } else { total / places as f64 }
}

fn add(column: &mut [u64; 5], a: u16, b: u16, more: bool) {
    let (a, b) = (u64::from(a), u64::from(b));
    for (sum, value) in column.iter_mut().zip([a, b, a * a, b * b, a * b]) {
        if more {
            *sum += value;
        } else {
            *sum -= value;
        }
    }
}

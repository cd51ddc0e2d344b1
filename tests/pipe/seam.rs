//! The seam index: whether pictures show the borders of a network's attention windows.

use image::RgbImage;

use crate::project::root;

/// Mean absolute step between neighbouring pixels across borders of windows of `window` pixels,
/// over the mean step beside them: one pixel before and one behind each border. Above 1 there is a
/// seam. The steps beside a border are at nearly the same place of the picture, where as many edges
/// of what is drawn pass. Rows and columns, all colours, all pictures together.
fn seam_index(images: &[RgbImage], window: u32) -> f64 {
    let (mut across, mut beside) = ((0.0, 0_u32), (0.0, 0_u32));
    for image in images {
        let side = image.width();
        let step = |at: u32, along: u32, down: bool| -> f64 {
            let place = |at: u32| if down { (along, at) } else { (at, along) };
            let (before, behind) = (image[place(at - 1)].0, image[place(at)].0);
            before.iter().zip(behind).map(|(a, b)| f64::from(a.abs_diff(b))).sum()
        };
        for border in (window..side).step_by(window as usize) {
            for along in 0..side {
                for down in [false, true] {
                    across = (across.0 + step(border, along, down), across.1 + 1);
                    for at in [border - 1, border + 1] {
                        beside = (beside.0 + step(at, along, down), beside.1 + 1);
                    }
                }
            }
        }
    }
    (across.0 / f64::from(across.1)) / (beside.0 / f64::from(beside.1))
}

/// Discs on a plain ground at places that cover the picture evenly, 16 pixels square.
fn discs() -> Vec<RgbImage> {
    let disc = |number: u32| {
        let (x, y) = (number % 16, number / 16 % 16);
        let radius = 3.0 + f64::from(number % 5);
        RgbImage::from_fn(16, 16, |column, row| {
            let away = f64::from(column.abs_diff(x)).hypot(f64::from(row.abs_diff(y)));
            let cover = (0.5 + radius - away).clamp(0.0, 1.0);
            image::Rgb([200.0, 90.0, 30.0].map(|colour| (40.0 + cover * (colour - 40.0)) as u8))
        })
    };
    (0..512).map(disc).collect()
}

#[test]
fn discs_have_no_seam() {
    for window in [4, 8] {
        let found = seam_index(&discs(), window);
        assert!((0.95..1.05).contains(&found), "windows of {window}: {found}");
    }
}

#[test]
fn another_shade_in_each_window_is_a_seam() {
    let mut images = discs();
    for image in &mut images {
        for (column, row, pixel) in image.enumerate_pixels_mut() {
            if (column / 8 + row / 8) % 2 == 1 {
                pixel.0 = pixel.0.map(|value| value + 12);
            }
        }
    }
    let found = seam_index(&images, 8);
    assert!(found > 1.3, "{found}");
    let elsewhere = seam_index(&images, 4);
    assert!(elsewhere > 1.05 && elsewhere < found, "a third of its borders are seams: {elsewhere}");
}

/// A file of pictures in a grid, eight in a row.
struct Grid {
    name: &'static str,
    /// Pixels of a picture's side, and how many times as large it is drawn.
    side: u32,
    scale: u32,
    /// Where the rows of pictures begin, from the left and each from above.
    left: u32,
    rows: &'static [u32],
}

impl Grid {
    fn pictures(&self) -> Vec<RgbImage> {
        let Self { side, scale, left, rows, .. } = *self;
        let drawn = image::open(root().join(self.name)).unwrap().to_rgb8();
        let apart = side * scale + 4;
        let places =
            rows.iter().flat_map(|top| (0..8).map(move |column| (left + column * apart, *top)));
        let picture = |(x, y)| {
            let at = |column, line| (x + scale * column + 2, y + scale * line + 2);
            RgbImage::from_fn(side, side, |column, line| drawn[at(column, line)])
        };
        places.map(picture).collect()
    }
}

/// The shipped grids are of a network without windows, which halves its images once, and of one
/// whose windows are as large as the picture. DiffiT with windows of 8 pixels, trained as long, has
/// shades of its own in each quadrant.
#[test]
fn shipped_pictures_have_no_seam_and_those_of_small_windows_have() {
    let rows = &[32, 124, 224, 316, 416, 508];
    let first_run =
        Grid { name: "docs/pictures/first_run.png", side: 12, scale: 6, left: 80, rows };
    let rows = &[32, 116, 200];
    let diffit =
        Grid { name: "docs/pictures/shapes_from_base.png", side: 16, scale: 4, left: 80, rows };
    for (grid, window) in [(first_run, 6), (diffit, 8)] {
        let found = seam_index(&grid.pictures(), window);
        assert!(found <= 1.05, "{}: {found}", grid.name);
    }
    let (name, rows) = ("tests/pipe/windows_of_8_pixels.png", &[29, 97, 165]);
    let found = seam_index(&Grid { name, side: 16, scale: 4, left: 64, rows }.pictures(), 8);
    assert!(found > 1.5, "{found}");
}

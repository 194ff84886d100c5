//! Faces in a frame: boxes, landmarks and the similarity that maps them onto the template.
//!
//! Pixel centres have integer coordinates, x to the right, y down.

/// A point, (x, y) in pixels.
pub(super) type Point = [f32; 2];

/// Left eye, right eye, nose tip, left and right corner of the mouth, as the viewer sees them.
pub(super) type Landmarks = [Point; 5];

/// A detected face, in pixels of the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Face {
    /// Detector confidence, 0 to 1.
    pub(super) score: f32,
    /// Left, top, right, bottom.
    pub(super) bounds: [f32; 4],
    /// Five landmarks.
    pub(super) points: Landmarks,
}

impl Face {
    /// Pixels of the box.
    pub(super) fn area(&self) -> f32 {
        let [left, top, right, bottom] = self.bounds;
        (right - left).max(0.0) * (bottom - top).max(0.0)
    }

    /// Distance between the eyes, pixels.
    pub(super) fn eye_distance(&self) -> f32 {
        let [left, right, ..] = self.points;
        (right[0] - left[0]).hypot(right[1] - left[1])
    }

    /// Intersection over union of the two boxes, 0 to 1.
    pub(super) fn overlap(&self, other: &Self) -> f32 {
        let [a, b] = [self.bounds, other.bounds];
        let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
        let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
        let shared = width * height;
        shared / (self.area() + other.area() - shared).max(f32::EPSILON)
    }
}

/// Maps (x, y) to (a x - b y + tx, b x + a y + ty): rotation, one scale, shift, no mirroring.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Similarity {
    pub(super) a: f32,
    pub(super) b: f32,
    pub(super) tx: f32,
    pub(super) ty: f32,
}

impl Similarity {
    /// The similarity that maps `from` onto `to` with the least sum of squares (Umeyama, "Least-
    /// squares estimation of transformation parameters", TPAMI 1991). In the plane its singular
    /// value decomposition has a closed form: the quotient of two complex covariances. `None`
    /// where the points coincide.
    pub(super) fn between(from: &Landmarks, to: &Landmarks) -> Option<Self> {
        let ([fx, fy], [gx, gy]) = (centre(from), centre(to));
        let (mut along, mut across, mut spread) = (0.0, 0.0, 0.0);
        for (p, q) in from.iter().zip(to) {
            let ([px, py], [qx, qy]) = ([p[0] - fx, p[1] - fy], [q[0] - gx, q[1] - gy]);
            along += px * qx + py * qy;
            across += px * qy - py * qx;
            spread += px * px + py * py;
        }
        let (a, b) = (along / spread, across / spread);
        let found = Self { a, b, tx: gx - a * fx + b * fy, ty: gy - b * fx - a * fy };
        (found.is_finite() && a.hypot(b) > f32::EPSILON).then_some(found)
    }

    /// Where `point` goes.
    pub(super) fn apply(&self, [x, y]: Point) -> Point {
        [self.a * x - self.b * y + self.tx, self.b * x + self.a * y + self.ty]
    }

    /// The way back. A similarity made by [`Self::between`] always has one.
    pub(super) fn inverse(&self) -> Self {
        let square = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / square, -self.b / square);
        Self { a, b, tx: b * self.ty - a * self.tx, ty: -b * self.tx - a * self.ty }
    }

    fn is_finite(&self) -> bool {
        [self.a, self.b, self.tx, self.ty].iter().all(|v| v.is_finite())
    }
}

fn centre(points: &Landmarks) -> Point {
    points.iter().fold([0.0; 2], |sum, p| [sum[0] + p[0] / 5.0, sum[1] + p[1] / 5.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::align::TEMPLATE;

    #[test]
    fn a_similarity_is_found_again_from_its_points() {
        let known = Similarity { a: 0.3, b: -1.2, tx: 40.0, ty: -7.0 };
        let moved = TEMPLATE.map(|p| known.apply(p));
        let found = Similarity::between(&TEMPLATE, &moved).unwrap();
        for (x, y) in [(found.a, 0.3), (found.b, -1.2), (found.tx, 40.0), (found.ty, -7.0)] {
            assert!((x - y).abs() < 1e-3, "{found:?}");
        }
    }

    #[test]
    fn the_inverse_leads_back() {
        let known = Similarity { a: 2.0, b: 0.5, tx: 3.0, ty: 9.0 };
        let [x, y] = known.inverse().apply(known.apply([17.0, -4.0]));
        assert!((x - 17.0).abs() < 1e-4 && (y + 4.0).abs() < 1e-4);
    }

    #[test]
    fn mirrored_points_are_not_mirrored_back() {
        let mirrored = TEMPLATE.map(|[x, y]| [112.0 - x, y]);
        let found = Similarity::between(&mirrored, &TEMPLATE).unwrap();
        assert!(found.a * found.a + found.b * found.b > 0.0, "a proper rotation: {found:?}");
    }

    #[test]
    fn coinciding_points_have_no_similarity() {
        assert_eq!(Similarity::between(&[[5.0, 5.0]; 5], &TEMPLATE), None);
        assert_eq!(Similarity::between(&[[f32::NAN; 2]; 5], &TEMPLATE), None);
    }
}

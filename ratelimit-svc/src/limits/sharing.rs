//! How the classes of requests share a limit: what a rule says about it, by class name, and the
//! same for one request, by rank on the ladder. Only the words; `decide::reserve` computes.

use std::fmt;

use crate::limits::class::{Classes, PerClass};

/// A part of a whole, from 0 to 1, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fraction(u32);

impl Fraction {
    /// The whole.
    pub const ONE: Self = Self(1_000_000);

    /// The fraction nearest to `value`, if that lies between 0 and 1.
    pub fn try_new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then(|| Self((value * 1e6).round() as u32))
    }

    /// So much of `whole`, rounded down. Exact for every limit.
    pub fn of(self, whole: u32) -> u32 {
        (u64::from(whole) * u64::from(self.0) / 1_000_000) as u32
    }

    fn millionths(self) -> u64 {
        self.0.into()
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1e6)
    }
}

/// What a rule gives one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Portion {
    /// The name of the class.
    pub class: Box<str>,
    /// How much of the limit.
    pub fraction: Fraction,
    /// Line and column in the file.
    pub at: Option<(u64, u64)>,
}

/// Portions as a rule lists them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Portions(pub Vec<Portion>);

impl Portions {
    /// The portion of a class that is listed.
    pub fn of(&self, class: &str) -> Option<Fraction> {
        self.0.iter().find(|portion| *portion.class == *class).map(|portion| portion.fraction)
    }

    /// The first portion with which the sum is more than the whole.
    pub fn beyond_whole(&self) -> Option<&Portion> {
        let mut sum = 0;
        self.0.iter().find(|portion| {
            sum += portion.fraction.millionths();
            sum > Fraction::ONE.millionths()
        })
    }
}

impl fmt::Display for Portions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, portion) in self.0.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{}: {}", portion.class, portion.fraction)?;
        }
        f.write_str("}")
    }
}

/// What a rule says about the sharing of its limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sharing {
    /// Nothing: requests that name a class share by forecast, the others are counted plainly.
    #[default]
    Unsaid,
    /// `reserve: none`: classes do not matter, as in the reference.
    Plain,
    /// `reserve: forecast`, which `floor` and `reserve_min` say as well.
    Forecast {
        /// What the classes above cannot take from a class.
        floor: Portions,
        /// What is kept for a class whatever its forecast.
        reserve_min: Portions,
    },
    /// `admit_up_to`: a class is admitted up to a fixed part of the limit.
    Thresholds(Portions),
}

/// What a rule says does not fit the classes of the service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharingError {
    /// The service has no such class.
    #[error("priority class '{0}' is not configured")]
    UnknownClass(Box<str>),
    /// A class may take more of the limit than one above it.
    #[error("admit_up_to of priority class '{0}' is more than that of '{1}', which ranks above it")]
    OutOfOrder(Box<str>, Box<str>),
}

impl Sharing {
    /// The portions that do not fit the classes, and why.
    pub fn misfits(&self, classes: &Classes) -> Vec<(&Portion, SharingError)> {
        let lists: [&[Portion]; 2] = match self {
            Self::Unsaid | Self::Plain => [&[], &[]],
            Self::Forecast { floor, reserve_min } => [&floor.0, &reserve_min.0],
            Self::Thresholds(up_to) => [&up_to.0, &[]],
        };
        let unknown = |portion: &&Portion| classes.named(&portion.class).is_none();
        let mut misfits: Vec<_> = lists
            .into_iter()
            .flatten()
            .filter(unknown)
            .map(|portion| (portion, SharingError::UnknownClass(portion.class.clone())))
            .collect();
        let Self::Thresholds(up_to) = self else { return misfits };
        let mut above: Option<&Portion> = None;
        for class in classes.ladder() {
            let Some(portion) = up_to.0.iter().find(|portion| *portion.class == *class.name) else {
                continue;
            };
            if let Some(above) = above.filter(|above| above.fraction < portion.fraction) {
                let names = (portion.class.clone(), above.class.clone());
                misfits.push((portion, SharingError::OutOfOrder(names.0, names.1)));
            }
            above = Some(portion);
        }
        misfits
    }

    /// How the limit is shared with a request of the class at `rank`; `named` when the request
    /// itself named one, even one that does not exist. Classes that do not exist are passed over: a rule must not be lost
    /// because of them.
    pub fn share(&self, classes: &Classes, rank: usize, named: bool) -> Option<ClassShare> {
        let how = match self {
            Self::Plain => return None,
            Self::Unsaid if !named => return None,
            Self::Unsaid => How::Forecast { guarantees: None },
            Self::Forecast { floor, reserve_min } => {
                let guarantees = (!floor.0.is_empty() || !reserve_min.0.is_empty()).then(|| {
                    let of = |list: &Portions, name: &str| list.of(name).unwrap_or_default();
                    let ladder = classes.ladder().iter();
                    let guarantees = ladder.map(|class| Guarantee {
                        floor: of(floor, &class.name),
                        reserve_min: of(reserve_min, &class.name),
                    });
                    guarantees.collect()
                });
                How::Forecast { guarantees }
            }
            Self::Thresholds(up_to) => {
                // A class that is not listed may take what the one above it may.
                let down_to_here = classes.ladder().iter().take(rank + 1);
                let listed = down_to_here.filter_map(|class| up_to.of(&class.name));
                How::UpTo(listed.min().unwrap_or(Fraction::ONE))
            }
        };
        let number = |value: usize| u8::try_from(value).expect("a ladder has at most 16 classes");
        let (rank, classes) = (number(rank), number(classes.ladder().len()));
        Some(ClassShare { rank, classes, how, asked: None })
    }

    /// What the rule says, in the words of the file; nothing where it says nothing.
    pub fn listing(&self) -> String {
        match self {
            Self::Unsaid => String::new(),
            Self::Plain => "reserve=none".to_owned(),
            Self::Forecast { floor, reserve_min } => {
                let mut text = "reserve=forecast".to_owned();
                if !floor.0.is_empty() {
                    text += &format!(" floor={floor}");
                }
                if !reserve_min.0.is_empty() {
                    text += &format!(" reserve_min={reserve_min}");
                }
                text
            }
            Self::Thresholds(up_to) => format!("admit_up_to={up_to}"),
        }
    }
}

/// How the limit of one hit is shared with other classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassShare {
    /// The rank of the hit's class on the ladder; 0 is the highest.
    pub rank: u8,
    /// How many classes the ladder has.
    pub classes: u8,
    /// By which rule.
    pub how: How,
    /// Of a block claimed ahead of requests: what requests of the class asked for since the last
    /// one. A request asks for what it takes, and says nothing here. Of a refund: what was asked for and
    /// is no demand after all, as another limit refused it.
    pub asked: Option<u64>,
}

/// The rule by which a limit is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// The class may take what those above it are not expected to need.
    Forecast {
        /// What classes are given whatever the forecast, highest class first; none for nothing.
        guarantees: Option<PerClass<Guarantee>>,
    },
    /// The class may take up to this part of the limit.
    UpTo(Fraction),
}

/// What one class is given whatever the forecast, as parts of the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guarantee {
    /// What the classes above cannot take.
    pub floor: Fraction,
    /// What the classes below cannot take.
    pub reserve_min: Fraction,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portions(list: &[(&str, f64)]) -> Portions {
        let portion = |&(class, fraction): &(&str, f64)| Portion {
            class: class.into(),
            fraction: Fraction::try_new(fraction).expect("in bounds"),
            at: None,
        };
        Portions(list.iter().map(portion).collect())
    }

    #[test]
    fn fractions_are_parts_of_a_whole() {
        let of = |value: f64, whole| Fraction::try_new(value).map(|fraction| fraction.of(whole));
        assert_eq!(of(0.6, 20_000), Some(12_000));
        assert_eq!(of(0.85, 10), Some(8));
        assert_eq!(of(1.0, u32::MAX), Some(u32::MAX));
        assert_eq!(of(0.0, 5), Some(0));
        for bad in [-0.01, 1.000_001, f64::NAN, f64::INFINITY] {
            assert_eq!(Fraction::try_new(bad), None, "{bad}");
        }
        assert_eq!(Fraction::try_new(0.02).expect("in bounds").to_string(), "0.02");
    }

    #[test]
    fn floors_may_be_the_whole_and_not_more() {
        assert_eq!(portions(&[("a", 0.7), ("b", 0.3)]).beyond_whole(), None);
        let more = portions(&[("a", 0.7), ("b", 0.3), ("c", 0.01)]);
        assert_eq!(more.beyond_whole().map(|portion| &*portion.class), Some("c"));
    }

    #[test]
    fn thresholds_follow_the_ladder() {
        let classes = Classes::default();
        let check = |list: &[(&str, f64)]| {
            let sharing = Sharing::Thresholds(portions(list));
            let misfits = sharing.misfits(&classes).into_iter();
            let named = misfits.map(|(at, error)| (at.class.to_string(), error.to_string()));
            named.collect::<Vec<_>>()
        };
        assert_eq!(check(&[("background", 0.6), ("ingest", 0.6)]), vec![]);
        let message = "admit_up_to of priority class 'background' is more than that of 'ingest', which ranks above it";
        let expected = vec![("background".to_owned(), message.to_owned())];
        assert_eq!(check(&[("background", 0.7), ("ingest", 0.6)]), expected);
        let message = "priority class 'gold' is not configured";
        assert_eq!(check(&[("gold", 0.7)]), vec![("gold".to_owned(), message.to_owned())]);
        assert_eq!(check(&[("gold", 0.7), ("silver", 0.1)]).len(), 2, "each is named");
    }

    #[test]
    fn what_a_request_shares() {
        let classes = Classes::default();
        assert_eq!(Sharing::Plain.share(&classes, 1, true), None);
        assert_eq!(Sharing::Unsaid.share(&classes, 1, false), None);
        let unsaid = Sharing::Unsaid.share(&classes, 1, true).expect("shared");
        assert_eq!((unsaid.rank, unsaid.classes), (1, 4));
        assert_eq!(unsaid.how, How::Forecast { guarantees: None });

        let some = Sharing::Thresholds(portions(&[("background", 0.5), ("platform-core", 0.9)]));
        for (rank, expected) in [(0, 1.0), (1, 0.9), (2, 0.9), (3, 0.5)] {
            let share = some.share(&classes, rank, false).expect("shared");
            let expected = Fraction::try_new(expected).expect("in bounds");
            assert_eq!(share.how, How::UpTo(expected), "{rank}");
        }

        let floor = portions(&[("background", 0.02), ("gone", 0.5)]);
        let sharing = Sharing::Forecast { floor, reserve_min: Portions::default() };
        let share = sharing.share(&classes, 0, false).expect("shared");
        let How::Forecast { guarantees: Some(guarantees) } = share.how else { panic!("none") };
        let floors: Vec<u32> = guarantees.iter().map(|given| given.floor.of(100)).collect();
        assert_eq!(floors, [0, 0, 0, 2]);
    }
}

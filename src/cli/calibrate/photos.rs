//! The folder of labelled photos, `person/photo.jpg`, and the file of groups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::enroll::is_photo;
use super::super::exit::{Exit, Failure};
use super::super::words::Said;

/// Most groups in one file: each has counts of its own.
const MOST_GROUPS: usize = 32;

/// One folder, and the person's group where the file names one.
#[derive(Debug)]
pub(in super::super) struct Person {
    pub(super) name: String,
    pub(in super::super) photos: Vec<PathBuf>,
    /// A place in [`Groups::names`].
    pub(super) group: Option<usize>,
}

/// The people of a folder that have photos, by name.
///
/// # Errors
/// A folder that cannot be read, or fewer than two people in it.
pub(in super::super) fn people(folder: &Path) -> Result<Vec<Person>, Failure> {
    let unreadable =
        |fault: std::io::Error| Failure::new(Exit::Usage, fault.to_string()).about(folder);
    let mut people = Vec::new();
    for path in sorted(folder).map_err(unreadable)? {
        if !path.is_dir() {
            continue;
        }
        let photos: Vec<_> =
            sorted(&path).map_err(unreadable)?.into_iter().filter(|p| is_photo(p)).collect();
        if !photos.is_empty() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            people.push(Person { name, photos, group: None });
        }
    }
    if people.len() < 2 {
        let message = format!(
            "{} with photos in there; calibration needs PERSON/PHOTO.jpg of many people, some of \
             them with two photos or more",
            if people.is_empty() { "no folders" } else { "one folder only" }
        );
        return Err(Failure::new(Exit::Usage, message).about(folder));
    }
    Ok(people)
}

fn sorted(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// The file of groups: a line `person,group` for each person.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// By name.
    pub(super) names: Vec<String>,
    /// What the file and the folder do not agree about.
    pub(super) complaints: Vec<Said>,
}

/// Puts each person into the group that the file names.
///
/// # Errors
/// A file that cannot be read, a line that is not `person,group`, a person in two groups, too many
/// groups, or nobody of the folder.
pub(super) fn assign(file: &Path, people: &mut [Person]) -> Result<Groups, Failure> {
    let wrong = |message: String| Failure::new(Exit::Usage, message).about(file);
    let text = std::fs::read_to_string(file).map_err(|fault| wrong(fault.to_string()))?;
    let group_of = parse(&text).map_err(wrong)?;
    let mut names: Vec<String> = group_of.values().map(|group| (*group).to_owned()).collect();
    names.sort();
    names.dedup();
    if names.len() > MOST_GROUPS {
        return Err(wrong(format!("names {} groups, the limit is {MOST_GROUPS}", names.len())));
    }
    let mut placed = 0;
    for person in people.iter_mut() {
        let group = group_of.get(person.name.as_str());
        person.group = group.and_then(|group| names.iter().position(|name| name == group));
        placed += usize::from(person.group.is_some());
    }
    if placed == 0 {
        return Err(wrong("names nobody who has a folder of photos".to_owned()));
    }
    let mut complaints = Vec::new();
    if placed < people.len() {
        complaints.push(said!("{} people are in no group", people.len() - placed));
    }
    if placed < group_of.len() {
        let strange = group_of.len() - placed;
        complaints.push(said!("{} people of the group file have no photos", strange));
    }
    Ok(Groups { names, complaints })
}

fn parse(text: &str) -> Result<BTreeMap<&str, &str>, String> {
    let mut group_of = BTreeMap::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || (number == 0 && line == "person,group") {
            continue;
        }
        let number = number + 1;
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [person, group] = fields[..] else {
            return Err(format!("line {number}: is not `person,group`"));
        };
        if person.is_empty() || group.is_empty() {
            return Err(format!("line {number}: person or group is empty"));
        }
        if group_of.insert(person, group).is_some_and(|other| other != group) {
            return Err(format!("line {number}: {person} is in two groups"));
        }
    }
    Ok(group_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str) -> Person {
        Person { name: name.to_owned(), photos: Vec::new(), group: None }
    }

    #[test]
    fn people_are_put_into_groups_and_the_rest_is_told() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("groups.csv");
        std::fs::write(&file, "\u{feff}person,group\n# x\na, old \n\nb,new\r\nz,old\n").unwrap();
        let mut people = [person("a"), person("b"), person("c")];
        let groups = assign(&file, &mut people).unwrap();
        assert_eq!(groups.names, ["new", "old"]);
        assert_eq!(people.map(|p| p.group), [Some(1), Some(0), None]);
        assert_eq!(groups.complaints.len(), 2, "{:?}", groups.complaints);
    }

    #[test]
    fn a_file_of_groups_that_is_none_is_refused_with_its_line() {
        for (text, words) in [
            ("a;b\n", "line 1: is not `person,group`"),
            ("person,group\na,b\nb,\n", "line 3: person or group is empty"),
            ("a,b\na,c\n", "line 2: a is in two groups"),
        ] {
            assert_eq!(parse(text).unwrap_err(), words);
        }
        assert_eq!(parse("a,b\na,b\n").unwrap().len(), 1);
    }
}

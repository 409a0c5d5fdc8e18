use std::io;

use crate::Disk;

/// Copies a store that another process may still be writing to an empty directory, all of it durable. What is copied opens as the
/// store did at some moment after the copy began.
///
/// # Errors
/// What the disks gave; `Interrupted` or `NotFound` when the other process replaced its log by a snapshot meanwhile: a later try may do.
pub fn copy<F: Disk, T: Disk>(from: &mut F, to: &mut T) -> io::Result<()> {
    let listed = |from: &mut F| {
        let mut names = from.list()?;
        names.sort_unstable();
        Ok::<_, io::Error>(names)
    };
    let names = listed(from)?;
    for name in &names {
        let bytes = from.read(name)?;
        let mut file = to.create(name)?;
        to.write(&mut file, 0, &bytes)?;
        to.sync(&mut file)?;
    }
    // Files of two generations don't go together.
    if listed(from)? != names {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "it was replaced by a newer one meanwhile"));
    }
    to.sync_dir()
}

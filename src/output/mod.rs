//! Where an image goes, one file for each kind of sink. Nothing here changes an image.

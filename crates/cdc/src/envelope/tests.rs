//! Records of each kind, in both forms.

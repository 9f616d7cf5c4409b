package store_test

import "errors"

// fillToTheLimit has no counterpart: Windows limits no file's size.
func fillToTheLimit(string) error { return errors.ErrUnsupported }

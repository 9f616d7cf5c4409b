package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// versionFile holds the version of the directory's layout, in decimal.
const versionFile = "version"

// CheckVersion compares the version of the directory's files with the one that
// the program writes, which is at least 1. A directory without a version is
// new, and gets the current one. A newer one is a [*VersionError] and an
// unreadable one an [*Error]; neither is written to. An older one passes and
// stays: who brings its files up to date calls SetVersion when that is done.
func (d *Dir) CheckVersion(current int) error {
	data, err := d.ReadFile(versionFile)
	if errors.Is(err, fs.ErrNotExist) {
		return d.SetVersion(current)
	}
	if err != nil {
		return err
	}
	found, err := parseVersion(data)
	if err != nil {
		return &Error{Path: d.Path(versionFile), Problem: "is damaged (" + err.Error() + ")",
			Fix: fmt.Sprintf("restore it from a copy, or write the number %d into it if this wgexpose wrote the directory", current), Err: err}
	}
	if found > current {
		return &VersionError{Path: d.Path(versionFile), Found: found, Supported: current}
	}
	return nil
}

// SetVersion writes the version of the directory's files.
func (d *Dir) SetVersion(version int) error {
	return d.WriteFile(versionFile, []byte(strconv.Itoa(version)+"\n"))
}

// parseVersion reads one positive decimal number and white space around it.
func parseVersion(data []byte) (int, error) {
	s := strings.TrimSpace(string(data))
	if len(s) > 9 {
		return 0, fmt.Errorf("it holds %d bytes instead of a short number", len(s))
	}
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 || s[0] == '+' {
		return 0, fmt.Errorf("it holds %q instead of a number", s)
	}
	return v, nil
}

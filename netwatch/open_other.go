//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package netwatch

import (
	"errors"
	"io"
)

func open() (io.ReadCloser, error) { return nil, errors.ErrUnsupported }

func overrun(error) bool { return false }

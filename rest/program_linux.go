package rest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is one of a process's, as /proc/PID/smaps has it (proc_pid_smaps(5)).
type mapping struct {
	from, to  uintptr
	perms     string // "r-xp"
	file      string // device and inode; of memory without a file, inode 0
	own       uint64 // KiB that belong to this process alone: they were written
	swapped   uint64 // KiB of them that were swapped out
	described bool   // own and swapped are known
}

// releaseProgram lets go of the pages of this program's file. They stay in the page
// cache, where the system may take them under pressure, and those that are used come
// back with the next access, a few microseconds for each 64 KiB.
//
// It touches only mappings of the executable that can neither be written nor have ever
// been: in the others, such as what a linker relocated and then protected, the pages
// are not those of the file, and would be lost.
func releaseProgram() error {
	here, _, _, _ := runtime.Caller(0)
	all, err := ownMappings()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range unwritten(all, here) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
			errs = append(errs, fmt.Errorf("madvise: %w", errno))
		}
	}
	return errors.Join(errs...)
}

// unwritten are the mappings of the file that the address is of whose pages are all
// those of the file.
func unwritten(all []mapping, address uintptr) []mapping {
	program := ""
	for _, m := range all {
		if m.from <= address && address < m.to && !strings.HasSuffix(m.file, " 0") {
			program = m.file
		}
	}
	var found []mapping
	for _, m := range all {
		if program != "" && m.file == program && m.described && m.own == 0 && m.swapped == 0 &&
			(m.perms == "r--p" || m.perms == "r-xp") {
			found = append(found, m)
		}
	}
	return found
}

// ownMappings are those of this process.
func ownMappings() ([]mapping, error) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readMappings(f)
}

// readMappings reads a file such as /proc/self/smaps.
func readMappings(r io.Reader) ([]mapping, error) {
	var all []mapping
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 5 && !strings.HasSuffix(fields[0], ":") { // from-to perms offset device inode [path]
			m := mapping{perms: fields[1], file: fields[3] + " " + fields[4]}
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &m.from, &m.to); err != nil {
				return nil, fmt.Errorf("read %q: %w", lines.Text(), err)
			}
			all = append(all, m)
			continue
		}
		if len(all) == 0 || len(fields) < 2 {
			continue
		}
		m := &all[len(all)-1]
		var into *uint64
		switch fields[0] {
		case "Anonymous:":
			into, m.described = &m.own, true
		case "Swap:":
			into = &m.swapped
		default:
			continue
		}
		if _, err := fmt.Sscan(fields[1], into); err != nil {
			return nil, fmt.Errorf("read %q: %w", lines.Text(), err)
		}
	}
	return all, lines.Err()
}

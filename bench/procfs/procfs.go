// Package procfs reads what Linux tells about processes and the machine.
//
//	before, err := procfs.CPU(pid)
//	…
//	after, err := procfs.CPU(pid)
//	fmt.Println(after - before) // processor time, of user and kernel
//
// See proc_pid_stat(5), proc_pid_status(5), proc_stat(5) and proc_loadavg(5).
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc. It is USER_HZ, which is 100 on
// every architecture that Go has (include/asm-generic/param.h).
const tick = 10 * time.Millisecond

// ticks reads one counter. The bound keeps the sum of any six, as a
// time.Duration, from overflowing; it is 48 years.
func ticks(field string) (time.Duration, error) {
	n, err := strconv.ParseUint(field, 10, 64)
	if err != nil {
		return 0, err
	}
	if n > uint64(math.MaxInt64/tick/6) {
		return 0, fmt.Errorf("%d ticks are too many", n)
	}
	return time.Duration(n) * tick, nil
}

// CPU returns the processor time that a process has used in user and kernel
// mode, all threads together, ended ones too.
func CPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	cpu, err := parseStat(b)
	if err != nil {
		return 0, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	return cpu, nil
}

// parseStat reads utime and stime, fields 14 and 15. Field 2 is the program's
// name in parentheses, which may hold blanks and parentheses itself.
func parseStat(b []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return 0, errors.New("no program name in it")
	}
	fields := strings.Fields(string(b[end+1:])) // from field 3 on
	if len(fields) < 13 {
		return 0, fmt.Errorf("%d fields after the name; at least 13 expected", len(fields))
	}
	user, err := ticks(fields[11])
	if err != nil {
		return 0, fmt.Errorf("user time: %w", err)
	}
	system, err := ticks(fields[12])
	if err != nil {
		return 0, fmt.Errorf("system time: %w", err)
	}
	return user + system, nil
}

// Memory is what a process has in RAM, in bytes.
type Memory struct {
	RSS  int64 // now
	Peak int64 // at most so far
}

// ReadMemory returns the resident memory of a process.
func ReadMemory(pid int) (Memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	m, err := parseStatus(b)
	if err != nil {
		return Memory{}, fmt.Errorf("read /proc/%d/status: %w", pid, err)
	}
	return m, nil
}

func parseStatus(b []byte) (Memory, error) {
	rss, err := kilobytes(b, "VmRSS")
	if err != nil {
		return Memory{}, err
	}
	peak, err := kilobytes(b, "VmHWM")
	if err != nil {
		return Memory{}, err
	}
	return Memory{RSS: rss, Peak: peak}, nil
}

// kilobytes finds a line "key:  123 kB".
func kilobytes(b []byte, key string) (int64, error) {
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, key+":")
		if !ok {
			continue
		}
		number, ok := strings.CutSuffix(strings.TrimSpace(rest), " kB")
		if !ok {
			return 0, fmt.Errorf("%s is not in kB: %q", key, line)
		}
		n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 48)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", key, err)
		}
		return int64(n) << 10, nil
	}
	return 0, fmt.Errorf("no %s in it", key)
}

// Busy returns the processor time that the whole machine has spent since boot
// on other things than idling and waiting for disks, all processors together.
// Time that a hypervisor gave to other machines counts as busy.
func Busy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	busy, err := parseMachine(b)
	if err != nil {
		return 0, fmt.Errorf("read /proc/stat: %w", err)
	}
	return busy, nil
}

func parseMachine(b []byte) (time.Duration, error) {
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "cpu ")
		if !ok {
			continue
		}
		// user nice system idle iowait irq softirq steal guest guest_nice;
		// the last two are contained in the first two.
		fields := strings.Fields(rest)
		if len(fields) < 8 {
			return 0, fmt.Errorf("%d columns; at least 8 expected", len(fields))
		}
		var busy time.Duration
		for _, i := range []int{0, 1, 2, 5, 6, 7} {
			n, err := ticks(fields[i])
			if err != nil {
				return 0, fmt.Errorf("column %d: %w", i+1, err)
			}
			busy += n
		}
		return busy, nil
	}
	return 0, errors.New("no line for all processors")
}

// LoadAverage returns the load of the last minute.
func LoadAverage() (float64, error) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	load, err := parseLoad(b)
	if err != nil {
		return 0, fmt.Errorf("read /proc/loadavg: %w", err)
	}
	return load, nil
}

func parseLoad(b []byte) (float64, error) {
	first, _, ok := strings.Cut(string(b), " ")
	if !ok {
		return 0, errors.New("one column; five expected")
	}
	return strconv.ParseFloat(first, 64)
}

package networks

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/netlatency/netlatency/pkg/latency"
)

const (
	// maxNodes bounds what Read makes room for.
	maxNodes = 10_000
	// maxLine is a row of so many values of 20 digits.
	maxLine = 21 * maxNodes
)

// Read reads a matrix of round trips as research publishes them: a line for
// each node, on it a number for each peer, separated by tabs, in
// milliseconds; 0 on the diagonal and where nothing was measured. It takes
// nothing else: a file that is cut off or of another format must not pass for
// a network.
func Read(r io.Reader) (*Network, error) {
	n := &Network{Groups: map[string]latency.NodeGroup{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		row, err := readRow(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(n.RTT)+1, err)
		}
		n.RTT = append(n.RTT, row)
		switch {
		case len(row) != len(n.RTT[0]):
			return nil, fmt.Errorf("line %d has %d values, the first has %d", len(n.RTT), len(row), len(n.RTT[0]))
		case len(n.RTT) > len(row):
			return nil, fmt.Errorf("more than %d lines of %d values: want a square", len(row), len(row))
		case row[len(n.RTT)-1] != 0:
			return nil, fmt.Errorf("line %d: %v ms from node %d to itself: want 0", len(n.RTT), row[len(n.RTT)-1]*1000, len(n.RTT))
		}
	}
	switch err := lines.Err(); {
	case err != nil:
		return nil, fmt.Errorf("line %d: %w", len(n.RTT)+1, err)
	case len(n.RTT) == 0:
		return nil, errors.New("no lines")
	case len(n.RTT) != len(n.RTT[0]):
		return nil, fmt.Errorf("%d lines of %d values: want a square; is the file cut off?", len(n.RTT), len(n.RTT[0]))
	}
	n.Names = names(len(n.RTT))
	return n, nil
}

func readRow(line []byte) ([]float64, error) {
	line = bytes.TrimSuffix(line, []byte("\r"))
	line = bytes.TrimSuffix(line, []byte("\t")) // some writers end each value with one
	if n := bytes.Count(line, []byte("\t")) + 1; n > maxNodes {
		return nil, fmt.Errorf("%d values: want at most %d", n, maxNodes)
	}
	var row []float64
	for field := range bytes.SplitSeq(line, []byte("\t")) {
		v, err := strconv.ParseFloat(string(field), 64)
		if err != nil || math.IsNaN(v) || v < 0 || v > latency.MaxRTT.Seconds()*1000 {
			return nil, fmt.Errorf("value %d is %.20q: want milliseconds from 0 to %v", len(row)+1, field, latency.MaxRTT.Milliseconds())
		}
		row = append(row, v/1000)
	}
	return row, nil
}

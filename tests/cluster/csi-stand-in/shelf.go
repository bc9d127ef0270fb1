package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// How long a call waits for a disk that is not there; the kubelet asks again after an error.
const patience = 10 * time.Second

// shelf knows the disks, and which of them are attached.
type shelf struct {
	disks, loops string
	lock         sync.Mutex
	attached     map[string]*os.File
}

func newShelf(disks, loops string) *shelf {
	return &shelf{disks: disks, loops: loops, attached: map[string]*os.File{}}
}

// file is where the disk with this id is.
func (s *shelf) file(id string) string {
	return filepath.Join(s.disks, strings.ToLower(path.Base(id)))
}

// attach gives the disk's device; one disk is one device, however often it is asked for.
func (s *shelf) attach(ctx context.Context, id string) (string, error) {
	image, err := s.image(ctx, id)
	if err != nil {
		return "", err
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	if device := s.attached[s.file(id)]; device != nil {
		return device.Name(), nil
	}
	device, err := loop(image)
	if err != nil {
		return "", err
	}
	s.attached[s.file(id)] = device
	if err := os.WriteFile(s.note(device), []byte(image), 0o600); err != nil {
		return "", err
	}
	return device.Name(), nil
}

// detach also answers well for a disk that is not attached: it may be asked for twice.
func (s *shelf) detach(id string) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	file := s.file(id)
	device := s.attached[file]
	if device == nil {
		return nil
	}
	if err := os.Remove(s.note(device)); err != nil {
		return err
	}
	if err := device.Close(); err != nil {
		return err
	}
	delete(s.attached, file)
	return os.WriteFile(file+".released", []byte(id), 0o600)
}

func (s *shelf) note(device *os.File) string {
	return filepath.Join(s.loops, filepath.Base(device.Name()))
}

// image waits for the disk, and says where it really is.
func (s *shelf) image(ctx context.Context, id string) (string, error) {
	file := s.file(id)
	deadline := time.Now().Add(patience)
	for asked := false; ; asked = true {
		image, err := filepath.EvalSymlinks(file)
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			return image, err
		}
		if !asked {
			if err := os.WriteFile(file+".wanted", []byte(id), 0o600); err != nil {
				return "", err
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return "", fmt.Errorf("no disk %s on this node: %w", id, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// loop makes a device of a file. The kernel detaches it at the last close, whoever that is.
func loop(image string) (*os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	copy(config.Info.File_name[:unix.LO_NAME_SIZE-1], image)
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no loop device is free: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		// Somebody else took it meanwhile.
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("%s: %w", device.Name(), err)
		}
	}
}

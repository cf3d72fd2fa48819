#define _POSIX_C_SOURCE 200809L
#define _XOPEN_SOURCE 700
#include "host/io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/io/text.h"

static mica_status io_error(const char *what, const char *path, int cause) {
  return mica_error(MICA_ERR_IO, "%s: cannot %s: %s", path, what, strerror(cause));
}

mica_status micah_file_read(const char *path, int64_t limit, char **data, int64_t *size) {
  *data = NULL;
  *size = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error("open", path, errno);
  struct stat info;
  if (fstat(fd, &info) != 0) {
    int cause = errno;
    close(fd);
    return io_error("read", path, cause);
  }
  if (S_ISDIR(info.st_mode)) {
    close(fd);
    return mica_error(MICA_ERR_IO, "%s: is a folder, expected a file", path);
  }
  int64_t known = S_ISREG(info.st_mode) ? (int64_t)info.st_size : 0;
  if (known > limit) {
    close(fd);
    return mica_error(MICA_ERR_FORMAT, "%s: has %lld bytes, more than the limit of %lld here", path, (long long)known,
                      (long long)limit);
  }
  /* the size is a hint only: pipes have none and files may grow */
  int64_t capacity = known + 1, at = 0;
  char *buffer = malloc((size_t)capacity + 1);
  if (!buffer) {
    close(fd);
    return mica_error(MICA_ERR_MEMORY, "%s: out of memory for %lld bytes", path, (long long)known);
  }
  for (;;) {
    if (at == capacity) {
      int64_t more = capacity < 4096 ? 4096 : capacity * 2;
      char *grown = realloc(buffer, (size_t)more + 1);
      if (!grown) {
        free(buffer);
        close(fd);
        return mica_error(MICA_ERR_MEMORY, "%s: out of memory for %lld bytes", path, (long long)more);
      }
      buffer = grown;
      capacity = more;
    }
    ssize_t got = read(fd, buffer + at, (size_t)(capacity - at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      int cause = errno;
      free(buffer);
      close(fd);
      return io_error("read", path, cause);
    }
    if (got == 0) break;
    at += got;
    if (at > limit) {
      free(buffer);
      close(fd);
      return mica_error(MICA_ERR_FORMAT, "%s: is longer than the limit of %lld bytes here", path, (long long)limit);
    }
  }
  close(fd);
  buffer[at] = 0;
  *data = buffer;
  *size = at;
  return MICA_OK;
}

/* ---- atomic writes ---- */

struct micah_writer {
  char *path, *temporary;
  int fd;
};

static void writer_free(micah_writer *writer) {
  free(writer->path);
  free(writer->temporary);
  free(writer);
}

mica_status micah_writer_begin(const char *path, micah_writer **out) {
  *out = NULL;
  if (!path || !*path) return mica_error(MICA_ERR_INVALID, "micah_writer_begin: empty path");
  micah_writer *writer = calloc(1, sizeof *writer);
  size_t room = strlen(path) + 48;
  if (writer) {
    writer->path = micah_copy(path, strlen(path));
    writer->temporary = malloc(room);
  }
  if (!writer || !writer->path || !writer->temporary) {
    if (writer) writer_free(writer);
    return mica_error(MICA_ERR_MEMORY, "%s: out of memory for its name", path);
  }
  /* open with 0666 lets the umask decide, as for any new file; a name in use belongs to another writer */
  for (int i = 0;; i++) {
    snprintf(writer->temporary, room, "%s.tmp-%ld-%d", path, (long)getpid(), i);
    writer->fd = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (writer->fd >= 0) break;
    if (errno == EEXIST && i < 1000) continue;
    mica_status status = io_error("write", path, errno);
    writer_free(writer);
    return status;
  }
  *out = writer;
  return MICA_OK;
}

mica_status micah_writer_put(micah_writer *writer, const void *data, int64_t size) {
  const char *bytes = data;
  while (size > 0) {
    size_t piece = size > (1 << 30) ? (size_t)1 << 30 : (size_t)size;
    ssize_t done = write(writer->fd, bytes, piece);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return io_error("write", writer->path, errno);
    bytes += done;
    size -= done;
  }
  return MICA_OK;
}

/* the rename is only durable once the folder is */
static mica_status sync_folder(const char *path) {
  char *folder = micah_path_folder(path);
  if (!folder) return mica_error(MICA_ERR_MEMORY, "%s: out of memory for its folder", path);
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  mica_status status = MICA_OK;
  if (fd < 0) {
    status = io_error("open", folder, errno);
  } else {
    /* EINVAL: a file system without folder sync; nothing more can be done there */
    if (fsync(fd) != 0 && errno != EINVAL) status = io_error("sync", folder, errno);
    close(fd);
  }
  free(folder);
  return status;
}

mica_status micah_writer_commit(micah_writer *writer) {
  mica_status status = MICA_OK;
  if (fsync(writer->fd) != 0 && errno != EINVAL) status = io_error("sync", writer->path, errno);
  if (close(writer->fd) != 0 && status == MICA_OK) status = io_error("write", writer->path, errno);
  writer->fd = -1;
  if (status == MICA_OK && rename(writer->temporary, writer->path) != 0)
    status = io_error("replace", writer->path, errno);
  if (status == MICA_OK) {
    status = sync_folder(writer->path);
    writer_free(writer);
    return status;
  }
  micah_writer_abort(writer);
  return status;
}

void micah_writer_abort(micah_writer *writer) {
  if (!writer) return;
  if (writer->fd >= 0) close(writer->fd);
  unlink(writer->temporary);
  writer_free(writer);
}

mica_status micah_file_write(const char *path, const void *data, int64_t size) {
  micah_writer *writer;
  mica_status status = micah_writer_begin(path, &writer);
  if (status < 0) return status;
  status = micah_writer_put(writer, data, size);
  if (status < 0) {
    micah_writer_abort(writer);
    return status;
  }
  return micah_writer_commit(writer);
}

mica_status micah_file_append(const char *path, const char *line) {
  size_t size = strlen(line);
  char *text = micah_copy(line, size + 1);
  if (!text) return mica_error(MICA_ERR_MEMORY, "%s: out of memory for a line of %zu bytes", path, size);
  text[size] = '\n';
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) {
    int cause = errno;
    free(text);
    return io_error("append to", path, cause);
  }
  mica_status status = MICA_OK;
  for (size_t at = 0; at < size + 1;) {
    ssize_t done = write(fd, text + at, size + 1 - at);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) {
      status = io_error("append to", path, errno);
      break;
    }
    at += (size_t)done;
  }
  if (close(fd) != 0 && status == MICA_OK) status = io_error("append to", path, errno);
  free(text);
  return status;
}

/* NAME.tmp-PID-N, as writer_begin makes them */
static int is_temporary(const char *name) {
  const char *mark = NULL;
  for (const char *p = strstr(name, ".tmp-"); p; p = strstr(p + 1, ".tmp-")) mark = p;
  if (!mark || mark == name) return 0;
  const char *p = mark + 5;
  size_t pid = strspn(p, "0123456789");
  if (!pid || p[pid] != '-') return 0;
  p += pid + 1;
  size_t number = strspn(p, "0123456789");
  return number && !p[number];
}

mica_status micah_file_sweep(const char *folder) {
  DIR *dir = opendir(folder);
  if (!dir) return io_error("list", folder, errno);
  mica_status status = MICA_OK;
  const struct dirent *entry;
  while ((entry = readdir(dir)) != NULL) {
    if (is_temporary(entry->d_name) && unlinkat(dirfd(dir), entry->d_name, 0) != 0 && errno != ENOENT)
      status = io_error("delete a temporary file in", folder, errno);
  }
  closedir(dir);
  return status;
}

/* ---- paths ---- */

int micah_path_kind(const char *path) {
  struct stat info;
  if (stat(path, &info) != 0) return MICAH_PATH_NONE;
  if (S_ISREG(info.st_mode)) return MICAH_PATH_FILE;
  return S_ISDIR(info.st_mode) ? MICAH_PATH_FOLDER : MICAH_PATH_OTHER;
}

mica_status micah_path_mkdirs(const char *path) {
  size_t size = strlen(path);
  char *part = micah_copy(path, size);
  if (!part) return mica_error(MICA_ERR_MEMORY, "%s: out of memory for its name", path);
  for (size_t i = 1; i <= size; i++) {
    if (i < size && part[i] != '/') continue;
    char kept = part[i];
    part[i] = 0;
    if (mkdir(part, 0777) != 0) {
      int cause = errno;
      /* existing parents may refuse with other causes than EEXIST (read-only file systems) */
      if (micah_path_kind(part) != MICAH_PATH_FOLDER) {
        mica_status status = io_error("make folder", part, cause == EEXIST ? ENOTDIR : cause);
        free(part);
        return status;
      }
    }
    part[i] = kept;
  }
  free(part);
  return MICA_OK;
}

char *micah_path_join(const char *folder, const char *name) {
  if (!folder || !*folder || name[0] == '/') return micah_copy(name, strlen(name));
  size_t a = strlen(folder), b = strlen(name), slash = folder[a - 1] != '/';
  char *path = malloc(a + b + 2);
  if (!path) return NULL;
  memcpy(path, folder, a);
  if (slash) path[a] = '/';
  memcpy(path + a + slash, name, b + 1);
  return path;
}

char *micah_path_folder(const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash) return micah_copy(".", 1);
  while (slash > path && slash[-1] == '/') slash--;
  return slash == path ? micah_copy("/", 1) : micah_copy(path, (size_t)(slash - path));
}

const char *micah_path_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

char *micah_path_absolute(const char *path) {
  char *real = realpath(path, NULL);
  if (real) return real;
  if (path[0] == '/') return micah_copy(path, strlen(path));
  char *here = realpath(".", NULL);
  if (!here) return NULL;
  char *joined = micah_path_join(here, path);
  free(here);
  return joined;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

void micah_path_list_free(char **names, int64_t count) {
  for (int64_t i = 0; i < count; i++) free(names[i]);
  free(names);
}

mica_status micah_path_list(const char *folder, char ***names, int64_t *count) {
  *names = NULL;
  *count = 0;
  DIR *dir = opendir(folder);
  if (!dir) return io_error("list", folder, errno);
  char **list = NULL;
  int64_t n = 0, capacity = 0;
  const struct dirent *entry;
  while ((entry = readdir(dir)) != NULL) {
    struct stat info;
    if (entry->d_name[0] == '.' || is_temporary(entry->d_name)) continue;
    if (fstatat(dirfd(dir), entry->d_name, &info, 0) != 0 || !S_ISREG(info.st_mode)) continue;
    if (n == capacity) {
      int64_t more = capacity ? capacity * 2 : 64;
      char **grown = realloc(list, (size_t)more * sizeof *grown);
      if (!grown) goto memory;
      list = grown;
      capacity = more;
    }
    list[n] = micah_copy(entry->d_name, strlen(entry->d_name));
    if (!list[n]) goto memory;
    n++;
  }
  closedir(dir);
  if (n) qsort(list, (size_t)n, sizeof *list, by_bytes);
  *names = list;
  *count = n;
  return MICA_OK;
memory:
  closedir(dir);
  micah_path_list_free(list, n);
  return mica_error(MICA_ERR_MEMORY, "%s: out of memory for its file names", folder);
}

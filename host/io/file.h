/* file.h: whole files in and out. files are replaced atomically: a reader sees the old content or the new, whatever
 * dies. */
#ifndef MICAH_IO_FILE_H
#define MICAH_IO_FILE_H

#include "mica/status.h"

/* read a whole file of at most `limit` bytes; *data is malloc'd, the caller frees it, and data[size] is NUL.
 * MICA_ERR_IO names path and cause; MICA_ERR_FORMAT when larger than the limit. */
mica_status micah_file_read(const char *path, int64_t limit, char **data, int64_t *size);

/* replace a file atomically: temporary file in the same folder, fsync, rename, fsync of the folder. */
mica_status micah_file_write(const char *path, const void *data, int64_t size);

/* the same in pieces: begin, put any number of times, then commit or abort (both release the writer). */
typedef struct micah_writer micah_writer;
mica_status micah_writer_begin(const char *path, micah_writer **out);
mica_status micah_writer_put(micah_writer *writer, const void *data, int64_t size);
mica_status micah_writer_commit(micah_writer *writer);
void        micah_writer_abort(micah_writer *writer); /* NULL: nothing */

/* append one line (a newline is added) by one write call, so that a kill leaves whole lines. makes the file if there
 * is none. */
mica_status micah_file_append(const char *path, const char *line);

/* delete temporary files that killed writers left in a folder; other files stay. */
mica_status micah_file_sweep(const char *folder);

/* 0 no, 1 file, 2 folder, 3 other */
enum { MICAH_PATH_NONE, MICAH_PATH_FILE, MICAH_PATH_FOLDER, MICAH_PATH_OTHER };
int micah_path_kind(const char *path);

/* make a folder and its parents; fine when it exists. */
mica_status micah_path_mkdirs(const char *path);

/* malloc'd paths; NULL when out of memory. join: `name` alone when it is absolute or folder is "" or NULL. */
char *micah_path_join(const char *folder, const char *name);
char *micah_path_folder(const char *path);            /* "." for a bare name, "/" for "/x" */
const char *micah_path_name(const char *path);        /* borrowed last component */
char *micah_path_absolute(const char *path);          /* realpath when it exists, else cwd joined */

/* names of the regular files in a folder, sorted by bytes; hidden ones left out. free with micah_path_list_free. */
mica_status micah_path_list(const char *folder, char ***names, int64_t *count);
void        micah_path_list_free(char **names, int64_t count);

#endif

/* version.h: the one place of the version; CMake reads it. before 1.0, op argument structs may change between minors. */
#ifndef MICA_VERSION_H
#define MICA_VERSION_H

#define MICA_VERSION_MAJOR 0
#define MICA_VERSION_MINOR 1
#define MICA_VERSION_PATCH 0

#endif

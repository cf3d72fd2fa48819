/* mica.h: everything. */
#ifndef MICA_MICA_H
#define MICA_MICA_H

#include "mica/adapt.h"
#include "mica/context.h"
#include "mica/family.h"
#include "mica/keys.h"
#include "mica/model.h"
#include "mica/op.h"
#include "mica/program.h"
#include "mica/status.h"
#include "mica/train.h"
#include "mica/version.h"

#endif

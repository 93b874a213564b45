"""Metrics of competitions: F-beta, accuracy, kappa, MAP@k, ROC AUC, log loss, KL divergence, RMSE."""
